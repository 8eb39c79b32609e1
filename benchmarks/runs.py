"""Commands of ``zoo`` as the benchmarks run them, in processes of their own, and the runs they make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from zoo.registry import models
from zoo.run import Run


def command(*words: str) -> dict[str, Any]:
    """The ``--json`` document of ``zoo WORDS``; rows with an error are part of it.

    Raises ``SystemExit`` with the command and its error where it failed as a whole.
    """
    done = subprocess.run(
        [sys.executable, "-m", "zoo.cli", *words, "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"zoo {' '.join(words)} ended with {done.returncode}") from None
    if "error" in document:
        raise SystemExit(f"zoo {' '.join(words)}: {document['error']['message']}")
    return document


def idle() -> bool:
    """Whether this process had the machine to itself in the last minute, as a latency needs it."""
    return os.getloadavg()[0] < (os.cpu_count() or 1) + 0.5


def trained(model: str, seed: int, folder: Path) -> Run:
    """The run ``MODEL-SEED`` of a default ``zoo train``: the one in the folder, or a new one there.

    Raises ``SystemExit`` where the one in the folder is unfinished or of another version of the model.
    """
    run = Run(folder / f"{model}-{seed}")
    if not run.path.exists():
        command("train", model, "--seed", str(seed), "--name", run.name, "--runs", str(folder))
    document = run.document()
    if document["status"] != "done":
        raise SystemExit(f"{run.path} is not finished: zoo train --resume {run.path}, or remove it")
    if document["spec"]["version"] != models().get(model).version:
        raise SystemExit(f"{run.path} is of another version of {model}; remove it")
    return run
