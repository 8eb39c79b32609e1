"""Measure an artefact in a process of its own."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import FAILURE, ZooError, unknown
from zoo_bench.loadgen import SCENARIOS, import_loadgen, limit_seconds

OFFLINE_BATCH = 32  # the gain of larger ones on a CPU is small, the memory is not
_LATENCIES = ("mean", "p50", "p90", "p99")


def measure(
    artifact: Path,
    samples: Mapping[str, np.ndarray],
    *,
    scenarios: Sequence[str] = SCENARIOS,
    seconds: float = 3.0,
    threads: int = 1,
    log_dir: Path,
    timeout: float | None = None,
    batch: int = OFFLINE_BATCH,
) -> list[dict[str, Any]]:
    """Run LoadGen's scenarios on a ``.tflite`` file, in one fresh process.

    Args:
        artifact: the file.
        samples: one array for each input of the artefact's signature, ``(samples, ...)`` in the
            dtype the signature takes; in the order of the inputs where there is no signature.
        scenarios: of "SingleStream" (batch 1, latency) and "Offline" (throughput), in this order.
        seconds: the least duration of each scenario; an official result needs 600.
        threads: LiteRT's intra-op threads.
        log_dir: LoadGen's logs go to ``log_dir/SCENARIO/``, the process's own to ``worker.log``.
        timeout: seconds after which the process is killed; by default what a slow model may need.
        batch: what Offline tries; an artefact that refuses it, or answers otherwise, is run one by
            one, and its row says so (``batch``, ``batch_reason``).

    Returns:
        One dict a scenario with the measured fields of :class:`zoo.schema.BenchmarkResult`, and
        ``samples``, ``first_invoke_ms``, ``memory_before_load_mb``, ``batch_reason``. Megabytes are
        10^6 bytes. ``peak_memory_mb`` is the largest resident set up to the last warm-up call, so
        without LoadGen's prepared queries. A file that cannot be measured gives rows with
        ``error``; this function raises for wrong arguments and missing packages alone.

    Raises:
        ZooError: LoadGen or LiteRT is not installed; wrong arguments.
    """
    samples = {name: np.ascontiguousarray(values) for name, values in samples.items()}
    _check_arguments(samples, scenarios, seconds, threads, batch)
    import_loadgen()
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ZooError(
            "LiteRT, which runs the artefact, is not installed.",
            expected="the package ai-edge-litert",
            hint="pip install ai-edge-litert",
            kind="missing_dependency",
            exit_code=FAILURE,
        )
    artifact, log_dir = Path(artifact).resolve(), Path(log_dir).resolve()
    sizes: dict[str, Any] = {"bytes": None, "bytes_gzip": None}
    if artifact.is_file():
        content = artifact.read_bytes()
        sizes = {"bytes": len(content), "bytes_gzip": len(gzip.compress(content, 9, mtime=0))}
        if timeout is None:
            timeout = 120.0 + len(scenarios) * (limit_seconds(seconds) + 2 * seconds)
        result = _spawn(artifact, samples, scenarios, seconds, threads, batch, log_dir, timeout)
    else:
        result = {"rows": [], "error": f"there is no file {artifact.name}"}
    shared = {"runtime": "litert", "threads": threads, **sizes}
    for name in ("load_ms", "first_invoke_ms", "memory_before_load_mb"):
        shared[name] = result.get(name)
    measured = {row["scenario"]: row for row in result["rows"]}
    return [{**shared, **_unmeasured(name, result), **measured.get(name, {})} for name in scenarios]


def _check_arguments(
    samples: Mapping[str, np.ndarray],
    scenarios: Sequence[str],
    seconds: float,
    threads: int,
    batch: int,
) -> None:
    for name in scenarios:
        if name not in SCENARIOS:
            raise unknown("scenario", name, SCENARIOS)
    lengths = {name: len(values) for name, values in samples.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise ZooError(
            "A benchmark needs samples.",
            expected="arrays of one length, of at least one sample",
            received=str(lengths),
        )
    for what, value in (("seconds", seconds), ("threads", threads), ("batch", batch)):
        if not value > 0:
            raise ZooError(f"{what} must be positive.", expected="> 0", received=str(value))


def _unmeasured(scenario: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a scenario that gave no result."""
    return {
        "scenario": scenario,
        "batch": 1,
        "valid": False,
        "reason": "not measured",
        "queries": None,
        "samples": None,
        "seconds": None,
        "latency_ms": dict.fromkeys(_LATENCIES),
        "throughput": None,
        "peak_memory_mb": None,
        "batch_reason": None,
        "error": result.get("error") or "the measuring process ended without a result",
    }


def _spawn(
    artifact: Path,
    samples: Mapping[str, np.ndarray],
    scenarios: Sequence[str],
    seconds: float,
    threads: int,
    batch: int,
    log_dir: Path,
    timeout: float,
) -> dict[str, Any]:
    """What ``zoo_bench.worker`` wrote, with ``error`` where it ended badly."""
    log_dir.mkdir(parents=True, exist_ok=True)
    log = log_dir / "worker.log"
    packages = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as scratch:
        folder = Path(scratch)
        arrays = {f"input_{number}": values for number, values in enumerate(samples.values())}
        np.savez(folder / "samples.npz", **arrays)  # type: ignore[arg-type]
        job = {
            "artifact": str(artifact),
            "inputs": list(samples),
            "scenarios": list(scenarios),
            "seconds": seconds,
            "threads": threads,
            "batch": batch,
            "log_dir": str(log_dir),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # -P: a stray numpy.py in the working directory is not imported.
        command = [sys.executable, "-P", "-m", "zoo_bench.worker", scratch]
        ended = None
        with log.open("wb") as output:
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    env={**os.environ, "PYTHONPATH": path},
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                ended = f"the measuring process was stopped after {timeout:g} s"
            else:
                if code < 0:
                    ended = f"the measuring process died of {signal.Signals(-code).name}"
                elif code:
                    ended = f"the measuring process ended with exit code {code}"
        written = folder / "result.json"
        result = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    result.setdefault("rows", [])
    if ended and "error" not in result:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        result["error"] = "; ".join([ended, *last])
    return result


def compare(
    first: Path,
    second: Path,
    samples: Mapping[str, np.ndarray],
    *,
    pairs: int = 5,
    scenario: str = "SingleStream",
    seconds: float = 1.5,
    threads: int = 1,
    log_dir: Path,
) -> dict[str, Any]:
    """How much slower ``second`` is than ``first``: the median ratio of alternating pairs.

    A machine's speed drifts by more than two variants differ; the two halves of a pair share the
    moment, and their order alternates (AB, BA, ...), so that the drift cancels.

    Args:
        first, second: two ``.tflite`` files with the same inputs.
        samples, scenario, seconds, threads, log_dir: as for :func:`measure`; the logs of pair ``i``
            go to ``log_dir/i/first`` and ``log_dir/i/second``.
        pairs: how many pairs.

    Returns:
        ``{what, ratio, low, high, pairs: [...], valid, error}``: ``what`` is "p50 latency"
        (SingleStream) or "time a sample" (Offline), ``ratio`` the median of second over first,
        ``low`` and ``high`` the extremes.
    """
    if pairs < 1:
        raise ZooError("A comparison needs pairs.", expected=">= 1", received=str(pairs))
    ratios: list[float] = []
    valid = True
    what = "p50 latency" if scenario == "SingleStream" else "time a sample"
    for turn in range(pairs):
        times = {}
        sides = [("first", first), ("second", second)]
        for name, artifact in sides if turn % 2 == 0 else sides[::-1]:
            (row,) = measure(
                artifact,
                samples,
                scenarios=(scenario,),
                seconds=seconds,
                threads=threads,
                log_dir=Path(log_dir) / str(turn) / name,
            )
            if row["error"]:
                empty = dict.fromkeys(("ratio", "low", "high"))
                error = f"{name}: {row['error']}"
                return {"what": what, **empty, "pairs": ratios, "valid": False, "error": error}
            valid = valid and row["valid"]
            p50 = row["latency_ms"]["p50"]
            times[name] = p50 if scenario == "SingleStream" else 1 / row["throughput"]
        ratios.append(times["second"] / times["first"])
    return {
        "what": what,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "pairs": ratios,
        "valid": valid,
        "error": None,
    }
