"""Checkpoints: a folder that appears by rename, with checksums, never trusted without them.

``step-NNNNNNNNN/`` holds ``state.npz`` (every array) and ``manifest.json``: one line of JSON with
the place in the training, size and SHA-256 of the arrays, and below it that line's own SHA-256. So
any cut or changed byte, of either file, is seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.run import new_folder, sha256_file

#: Checkpoints that are kept.
KEEP = 3
#: No state of a callback, though it changes: Keras turns its sign when it first sees the metric.
TURNED = "min_delta"
#: What reading a damaged archive may raise.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass
class Found:
    """The newest whole checkpoint; ``arrays`` is empty where there is none."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)  # the damaged ones that were passed over


def _groups(model: Any) -> Iterable[tuple[str, Sequence[Any]]]:
    """Variables by kind; ``model.variables`` holds dropout's random states, weights do not."""
    yield "model", model.variables
    yield "optimizer", model.optimizer.variables
    yield "metrics", model.metrics_variables


def state_of(model: Any) -> dict[str, np.ndarray]:
    """Every variable of a compiled model: weights, random states, optimizer, running metrics."""
    return {
        f"{kind}/{k}": np.array(variable)
        for kind, variables in _groups(model)
        for k, variable in enumerate(variables)
    }


def restore(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Put :func:`state_of` back; the optimizer must have been built.

    Raises ``ValueError`` where the arrays are another model's.
    """
    for kind, variables in _groups(model):
        stored = sum(name.startswith(f"{kind}/") for name in arrays)
        if stored != len(variables):
            raise ValueError(f"{stored} {kind} variables stored, the model has {len(variables)}")
        for k, variable in enumerate(variables):
            variable.assign(arrays[f"{kind}/{k}"])


def callback_state(callbacks: Sequence[Any]) -> dict[str, np.ndarray]:
    """What Keras callbacks remember between batches: their numbers, texts and arrays.

    Early stopping's ``wait`` and ``best``, a plateau's ``cooldown_counter`` and the like; and the
    variables that a callback lists as ``held``, such as pruning's masks.
    """
    state: dict[str, np.ndarray] = {}
    for k, callback in enumerate(callbacks):
        for j, variable in enumerate(getattr(callback, "held", ())):
            state[f"held/{k}/{j}"] = variable.numpy()  # of the first replica
        for name, value in vars(callback).items():
            if name == TURNED:
                continue
            if isinstance(value, (bool, int, float, str, np.ndarray, np.number)):
                state[f"callback/{k}/{name}"] = np.asarray(value)
            elif _arrays(value):
                for j, item in enumerate(value):
                    state[f"callback/{k}/{name}/{j}"] = item
    return state


def restore_callbacks(callbacks: Sequence[Any], arrays: dict[str, np.ndarray]) -> None:
    """Put :func:`callback_state` back, after ``on_train_begin`` has reset the callbacks."""
    lists: dict[tuple[int, str], dict[int, np.ndarray]] = {}
    for k, callback in enumerate(callbacks):
        for j, variable in enumerate(getattr(callback, "held", ())):
            if f"held/{k}/0" in arrays and f"held/{k}/{j}" not in arrays:
                variable.assign(np.zeros(variable.shape))  # a count that there was not before
    for key, value in arrays.items():
        kind, *parts = key.split("/")
        if kind == "held":
            callbacks[int(parts[0])].held[int(parts[1])].assign(value)
        if kind != "callback" or int(parts[0]) >= len(callbacks):
            continue
        callback, name = int(parts[0]), parts[1]
        if len(parts) == 3:
            lists.setdefault((callback, name), {})[int(parts[2])] = value
        else:
            plain = value.item() if value.ndim == 0 else value
            setattr(callbacks[callback], name, plain)
    for (callback, name), items in lists.items():
        setattr(callbacks[callback], name, [items[j] for j in sorted(items)])


def _arrays(value: Any) -> bool:
    """A list of arrays, such as the best weights that early stopping keeps."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, np.ndarray) and not item.dtype.hasobject for item in value)
    )


def save(folder: Path, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Path:
    """Write ``folder/step-NNN`` whole or not at all, then drop all but the newest :data:`KEEP`.

    Flushed to the disk before it is renamed. Raises ``OSError`` (a full disk) with the earlier
    checkpoints as they were.
    """
    target = folder / f"step-{step:09d}"
    aside = folder / f".tmp-old-{secrets.token_hex(4)}"
    with new_folder(target, replace=aside) as temporary:
        state = temporary / "state.npz"
        np.savez(state, **arrays)  # type: ignore[arg-type]
        body = json.dumps(
            {**meta, "step": step, "bytes": state.stat().st_size, "sha256": sha256_file(state)},
            sort_keys=True,
        )
        (temporary / "manifest.json").write_text(sealed(body), encoding="utf-8")
    clean(folder)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return target


def sealed(body: str) -> str:
    """A line with its own checksum below it."""
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n"


def clean(folder: Path) -> None:
    """Remove what an ended process left half-written."""
    for rest in folder.glob(".tmp-*"):
        shutil.rmtree(rest, ignore_errors=True)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """One checkpoint's arrays and manifest. Raises one of :data:`DAMAGE` when it is not whole."""
    text = (path / "manifest.json").read_bytes().decode("utf-8")
    body = text.partition("\n")[0]
    if text != sealed(body):
        raise ValueError("the manifest's checksum does not match")
    meta, state = json.loads(body), path / "state.npz"
    size = os.stat(state).st_size
    if size != meta["bytes"]:
        raise ValueError(f"{size:,} bytes of {meta['bytes']:,}")
    if sha256_file(state) != meta["sha256"]:
        raise ValueError("the checksum does not match")
    with np.load(state, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}, meta


def newest(folder: Path) -> Found:
    """The newest checkpoint that is whole, and those that were passed over to find it."""
    found = Found()
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            found.arrays, found.meta = read(path)
            return found
        except DAMAGE as error:
            found.passed.append(f"{path.name} is damaged ({error})")
    return found
