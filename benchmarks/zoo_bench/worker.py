"""The measuring process: ``python -m zoo_bench.worker FOLDER``.

It imports NumPy, LoadGen, the artefact's runtime and nothing else of weight, so that its peak memory is
that of a deployment. ``FOLDER`` holds ``job.json`` (artifact, runtime, scenarios, seconds, threads, batch, log_dir)
and ``samples.npz``; ``result.json`` appears there by rename, anew after each scenario.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_bench.loadgen import run_loadgen

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


def peak_memory_mb() -> float | None:
    """The largest resident set so far, in 10^6 bytes; None where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


#: The name of samples for an artefact's only input, whatever that calls it.
ONLY = "(the only input)"


class Model:
    """A LiteRT artefact bound to samples, at a fixed batch.

    ``set_tensor`` and ``invoke`` take half the time of a signature runner on a small model, and a
    live runner forbids ``invoke``: signatures only tell the tensors' indices here.
    """

    def __init__(self, artifact: str, threads: int, samples: dict[str, np.ndarray], batch: int):
        from ai_edge_litert.interpreter import Interpreter

        started = time.perf_counter()
        self.interpreter = Interpreter(artifact, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.batch, self.samples = batch, samples
        self.inputs = _bind(self.interpreter, samples)
        resized = False
        for name, detail in self.inputs:
            shape = (batch, *samples[name].shape[1:])
            if tuple(detail["shape"]) != shape:
                _check(name, detail, samples[name])
                self.interpreter.resize_tensor_input(detail["index"], shape)
                resized = True
        if resized:
            self.interpreter.allocate_tensors()
        self.outputs = [detail["index"] for detail in self.interpreter.get_output_details()]
        self.rows = [
            [
                (detail["index"], np.ascontiguousarray(samples[name][i : i + 1]))
                for name, detail in self.inputs
            ]
            for i in range(len(samples[self.inputs[0][0]]) if batch == 1 else 0)
        ]

    def one(self, index: int) -> list[np.ndarray]:
        """Answer one sample, the output copied out as a deployment would."""
        for tensor, value in self.rows[index]:
            self.interpreter.set_tensor(tensor, value)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(tensor) for tensor in self.outputs]

    def many(self, indices: list[int]) -> list[np.ndarray]:
        """Answer up to ``batch`` samples; a last, smaller lot is filled up and paid for in full."""
        indices = indices + indices[:1] * (self.batch - len(indices))
        for name, detail in self.inputs:
            self.interpreter.set_tensor(detail["index"], self.samples[name][indices])
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(tensor) for tensor in self.outputs]


class KerasModel:
    """Packed Keras weights bound to samples: what :class:`Model` is for LiteRT."""

    def __init__(self, artifact: str, threads: int, samples: dict[str, np.ndarray], batch: int):
        from zoo.predict import KerasArtifact

        started = time.perf_counter()
        self.function = KerasArtifact(Path(artifact))
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.batch = batch
        (self.samples,) = samples.values()
        self.rows = [self.samples[i : i + 1] for i in range(len(self.samples) if batch == 1 else 0)]

    def one(self, index: int) -> list[np.ndarray]:
        """Answer one sample."""
        return [self.function(self.rows[index])]

    def many(self, indices: list[int]) -> list[np.ndarray]:
        """Answer up to ``batch`` samples; a last, smaller lot is filled up and paid for in full."""
        indices = indices + indices[:1] * (self.batch - len(indices))
        return [self.function(self.samples[indices])]


def _keras_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


#: Runtime -> the module that is imported before memory is first read, what is done once, the model.
RUNTIMES: dict[str, tuple[str, Callable[[int], None], Any]] = {
    "litert": ("ai_edge_litert.interpreter", lambda threads: None, Model),
    "keras": ("zoo.predict", _keras_threads, KerasModel),
}


def _bind(interpreter: Interpreter, samples: dict[str, np.ndarray]) -> list[tuple[str, dict]]:
    """``(name, detail)`` of each input: by the signature's names, else in the samples' order."""
    signatures = interpreter.get_signature_list()
    if signatures:
        key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        details = interpreter.get_signature_runner(key).get_input_details()
    else:
        ordered = interpreter.get_input_details()
        known = list(samples) if len(samples) == len(ordered) else [d["name"] for d in ordered]
        details = dict(zip(known, ordered, strict=True))
    if list(samples) == [ONLY] and len(details) == 1:
        details = {ONLY: next(iter(details.values()))}
    if set(details) != set(samples):
        raise ValueError(
            f"the artefact's inputs are {sorted(details)}, the samples' {sorted(samples)}"
        )
    for name, detail in details.items():
        if np.dtype(detail["dtype"]) != samples[name].dtype:
            raise ValueError(
                f"input {name!r} takes {np.dtype(detail['dtype'])}, received {samples[name].dtype}"
            )
    return list(details.items())


def _check(name: str, detail: dict, values: np.ndarray) -> None:
    """Each axis but the first must be the artefact's own, or free (-1) in it."""
    free = tuple(detail["shape_signature"].tolist())
    fits = len(free) == values.ndim and all(
        size in (-1, given) for size, given in zip(free[1:], values.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(f"input {name!r} takes {free[1:]} a sample, received {values.shape[1:]}")


def _try_batch(
    make: Any, artifact: str, threads: int, samples: dict[str, np.ndarray], batch: int, one: Any
) -> tuple[int, str | None]:
    """The batch for Offline: ``batch`` where the artefact takes it and answers as one by one."""
    lot = [i % len(one.rows) for i in range(batch)]
    try:
        together = make(artifact, threads, samples, batch).many(lot)
    except (ValueError, RuntimeError) as error:
        return 1, f"batch {batch} refused: {str(error).splitlines()[0]}"
    apart = [one.one(index) for index in lot]
    for number, values in enumerate(together):
        alone = np.concatenate([answer[number] for answer in apart])
        scale = float(np.abs(alone).max(initial=0.0))
        if values.shape != alone.shape or not np.allclose(
            values, alone, rtol=0, atol=1e-3 * scale, equal_nan=True
        ):
            return 1, f"batch {batch} refused: its answers differ from those one by one"
    return batch, None


def _write(folder: Path, result: dict[str, Any]) -> None:
    scratch = folder / "result.json.new"
    scratch.write_text(json.dumps(result), encoding="utf-8")
    os.replace(scratch, folder / "result.json")


def run(folder: Path) -> None:
    """Do the job of ``folder``."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "samples.npz", allow_pickle=False) as stored:
        # Named by number: an input's own name may hold a slash.
        samples = {name: stored[f"input_{number}"] for number, name in enumerate(job["inputs"])}
    count = len(next(iter(samples.values())))
    artifact, threads = job["artifact"], job["threads"]
    module, prepare, make = RUNTIMES[job["runtime"]]
    importlib.import_module(module)
    prepare(threads)
    result: dict[str, Any] = {"memory_before_load_mb": peak_memory_mb(), "rows": []}
    _write(folder, result)

    one = make(artifact, threads, samples, 1)
    started = time.perf_counter()
    one.one(0)
    result["first_invoke_ms"] = (time.perf_counter() - started) * 1e3
    result["load_ms"] = one.load_ms
    for index in range(min(count, 10)):
        one.one(index)
    # Memory is read before LoadGen runs: its prepared queries are the instrument's, not the
    # model's, and the faster the model, the more there are.
    memory = {"SingleStream": peak_memory_mb()}
    batch, why = 1, None
    if "Offline" in job["scenarios"] and job["batch"] > 1:
        batch, why = _try_batch(make, artifact, threads, samples, job["batch"], one)
    memory["Offline"] = peak_memory_mb() if batch > 1 else memory["SingleStream"]
    for scenario in job["scenarios"]:
        batched = scenario == "Offline" and batch > 1
        row = run_loadgen(
            one.one,
            count,
            scenario=scenario,
            seconds=job["seconds"],
            log_dir=Path(job["log_dir"]) / scenario,
            issue_batch=make(artifact, threads, samples, batch).many if batched else None,
            batch=batch,
        )
        row["peak_memory_mb"] = memory[scenario]
        row["error"] = None
        row["batch_reason"] = why if scenario == "Offline" else None
        result["rows"].append(row)
        _write(folder, result)


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        run(folder)
    except Exception as error:
        path = folder / "result.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
        result["error"] = f"{type(error).__name__}: {error}"
        _write(folder, result)
        raise


if __name__ == "__main__":
    main()
