"""``zoo`` commands as the benchmarks run them: in processes of their own, answered by ``--json``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from zoo.registry import models
from zoo.run import Run


def zoo(*words: str) -> dict[str, Any]:
    """The document of one command; rows with an error are part of it.

    Raises ``SystemExit`` with the command and what it said where it failed as a whole.
    """
    done = subprocess.run(
        [sys.executable, "-m", "zoo.cli", *words, "--json"], stdout=subprocess.PIPE
    )
    document = json.loads(done.stdout)
    if "error" in document:
        raise SystemExit(f"zoo {' '.join(words)}: {document['error']['message']}")
    return document


def trained(model: str, seed: int, folder: Path) -> Run:
    """The run ``MODEL-SEED`` of a default ``zoo train``: the one in the folder, or a new one there.

    Raises ``SystemExit`` where the one in the folder is of another version of the model.
    """
    run = Run(folder / f"{model}-{seed}")
    if not (run.path / "base" / "variant.json").exists():
        zoo("train", model, "--seed", str(seed), "--name", run.name, "--runs", str(folder))
    if run.document()["spec"]["version"] != models().get(model).version:
        raise SystemExit(f"{run.path} is of another version of {model}; remove it")
    return run
