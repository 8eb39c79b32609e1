"""Checkpoints: a folder that appears by rename, with a checksum, never trusted without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from zoo.run import new_folder, sha256_file, write_arrays, write_atomic

KEEP = 2


def state_of(model: Any) -> dict[str, np.ndarray]:
    """Every variable of a compiled model and its optimizer, dropout's random states included."""
    arrays = {f"model/{k}": np.asarray(v) for k, v in enumerate(model.variables)}
    arrays |= {f"optimizer/{k}": np.asarray(v) for k, v in enumerate(model.optimizer.variables)}
    return arrays


def restore(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Put :func:`state_of` back; the optimizer must have been built."""
    for kind, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for k, variable in enumerate(variables):
            variable.assign(arrays[f"{kind}/{k}"])


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Path:
    """Write ``folder/step-NNN`` whole or not at all, then drop all but the newest two."""
    target = folder / f"step-{step:09d}"
    if target.exists():
        shutil.rmtree(target)
    with new_folder(target) as temporary:
        write_arrays(temporary / "state.npz", arrays)
        record = {**meta, "step": step, "sha256": sha256_file(temporary / "state.npz")}
        write_atomic(temporary / "manifest.json", json.dumps(record))
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return target


def newest(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole: its arrays, its manifest, and what was passed over."""
    passed: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            meta = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            if sha256_file(path / "state.npz") != meta["sha256"]:
                raise ValueError("the checksum does not match")
            with np.load(path / "state.npz", allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}, meta, passed
        except (OSError, ValueError, KeyError) as error:
            passed.append(f"{path.name} is damaged ({error})")
    if passed:
        return {}, {}, passed
    return None
