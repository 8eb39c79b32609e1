"""Texts from variants of language models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.run import BASE, RUNS, find_run


def generate(
    text: str,
    prompt: str,
    *,
    max_tokens: int = 100,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    beams: int = 1,
    variant: str = BASE,
    root: Path = RUNS,
) -> dict[str, Any]:
    """What variants of a run make of a prompt: ``{run, results: [{variant, prompt, outputs, ...}]}``."""
    from zoo.generate import Choice
    from zoo.tasks import get_task
    from zoo.train.running import reopen

    run = find_run(text, root)
    chosen = run.select(variant)
    task = get_task(run.document()["data"]["task"])
    if task.generate is None:
        raise ZooError(
            f"{run.name} makes no texts: it was trained for the task {task.name}.",
            expected="a run of a language model, such as gpt_tiny",
            received=f"{run.document()['spec']['name']} for {task.name}",
            hint="`zoo list` shows the models and their tasks.",
            kind="task_mismatch",
        )
    module, function = task.generate.split(":")
    make = getattr(importlib.import_module(module), function)
    choice = Choice(max_tokens, temperature, top_k, top_p, seed, beams)
    session = reopen(run)
    results = []
    for item in chosen:
        outputs, tokens, seconds = make(session, item, prompt, choice)
        results.append(
            {
                "variant": item.name,
                "prompt": prompt,
                "outputs": outputs,
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds if seconds > 0 else None,
            }
        )
    return {"run": str(run.path), "results": results}
