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
from zoo.predict import runtime_of
from zoo_bench.loadgen import SCENARIOS, import_loadgen, limit_seconds
from zoo_bench.worker import ONLY

OFFLINE_BATCH = 32  # the gain of larger ones on a CPU is small, the memory is not
LATENCIES = ("mean", "p50", "p90", "p99")


def measure(
    artifact: Path,
    samples: Mapping[str, np.ndarray] | np.ndarray,
    *,
    scenarios: Sequence[str] = SCENARIOS,
    seconds: float = 3.0,
    threads: int = 1,
    log_dir: Path,
    timeout: float | None = None,
    batch: int = OFFLINE_BATCH,
) -> list[dict[str, Any]]:
    """Run LoadGen's scenarios on an artefact, in one fresh process.

    Args:
        artifact: a ``.tflite`` file, or weights that Keras packed; its runtime runs it.
        samples: one array for each input of the artefact's signature, ``(samples, ...)`` in the
            dtype the signature takes; in the order of the inputs where there is no signature. Or one
            array, for an artefact with one input of any name.
        scenarios: of "SingleStream" (batch 1, latency) and "Offline" (throughput), in this order.
        seconds: the least duration of each scenario; an official result needs 600.
        threads: the runtime's intra-op threads.
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
    if isinstance(samples, np.ndarray):
        samples = {ONLY: samples}
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
    shared = {"runtime": runtime_of(artifact), "threads": threads, **sizes}
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
        "latency_ms": dict.fromkeys(LATENCIES),
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
            "runtime": runtime_of(artifact),
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


ROUNDS = 6  # the range of so many holds the true median in 97 % of cases: 1 - 2 / 2**6


def side_by_side(
    artifacts: Mapping[str, Path],
    samples: Mapping[str, np.ndarray] | np.ndarray,
    *,
    rounds: int = ROUNDS,
    scenario: str = "SingleStream",
    seconds: float = 0.3,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """How many times faster each artefact is than the first: paired ratios of alternating rounds.

    A machine's speed drifts by more than two variants differ; the measurements of a round share the
    moment, and their order is turned around from round to round, so that the drift cancels.

    Args:
        artifacts: files with the same inputs, by name; the first is compared with.
        samples, scenario, seconds, threads: as for :func:`measure`.
        rounds: how often each is measured.

    Returns:
        For each name but the first ``{what, ratio, ci_low, ci_high, rounds, reason, error}``: ``what`` is
        "p50 latency" (SingleStream) or "time a sample" (Offline), ``ratio`` the median of the first's
        over its own (above 1: faster), the interval the range of the rounds, which holds the median
        with probability ``1 - 2 / 2**rounds`` (Hettmansperger & Sheather, Statistics & Probability
        Letters 4, 1986); ``rounds`` are the ratios. A file for another runtime than the first's is not
        measured: its ratio would be that of the runtimes, as its ``reason`` says.
    """
    if rounds < 1:
        raise ZooError("A comparison needs rounds.", expected=">= 1", received=str(rounds))
    names = list(artifacts)
    base = names[0]
    own = runtime_of(artifacts[base])
    apart = {name: runtime_of(artifacts[name]) for name in names}
    apart = {name: runtime for name, runtime in apart.items() if runtime != own}
    names = [name for name in names if name not in apart]
    times: dict[str, list[float]] = {name: [] for name in names}
    errors: dict[str, str] = {}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            if name in errors:
                continue
            with tempfile.TemporaryDirectory(prefix="zoo-bench-logs-") as logs:
                (row,) = measure(
                    artifacts[name], samples, scenarios=(scenario,), seconds=seconds,
                    threads=threads, log_dir=Path(logs),
                )  # fmt: skip
            if row["error"]:
                errors[name] = f"{name}: {row['error']}"
                continue
            single = scenario == "SingleStream"
            times[name].append(row["latency_ms"]["p50"] if single else 1 / row["throughput"])
    what = "p50 latency" if scenario == "SingleStream" else "time a sample"
    found: dict[str, dict[str, Any]] = {}
    for name in names[1:]:
        error = errors.get(base) or errors.get(name)
        pairs = zip(times[base], times[name], strict=True) if error is None else ()
        ratios = [first / own for first, own in pairs]
        found[name] = {
            "what": what,
            "ratio": statistics.median(ratios) if ratios else None,
            "ci_low": min(ratios, default=None),
            "ci_high": max(ratios, default=None),
            "rounds": ratios,
            "reason": None,
            "error": error,
        }
    for name, runtime in apart.items():
        reason = f"runs in {runtime}, {base} in {own}: their speeds are not like for like"
        found[name] = {"what": what, "ratio": None, "ci_low": None, "ci_high": None, "rounds": [],
                       "reason": reason, "error": None}  # fmt: skip
    return {name: found[name] for name in list(artifacts)[1:]}
