"""One LoadGen run of any function: the core of the benchmark, free of models.

MLCommons LoadGen (Reddi et al., "MLPerf Inference Benchmark", ISCA 2020) issues the queries, keeps
the time in C++ and judges its own run. Two of its scenarios are used:

SingleStream: the next query is sent when the last one is answered; the result is latency.
Offline: one query holds all samples; the result is throughput.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCENARIOS = ("SingleStream", "Offline")
OFFICIAL_SECONDS = 600.0  # MLPerf Inference rules: the least duration of an official run
MIN_QUERIES = 64  # below, LoadGen's early stopping cannot bound the 90th percentile
# What LoadGen's Python binding adds to a query; its share is measured in benchmarks/README.md.
BINDING_NS = {"SingleStream": 2_000, "Offline": 1_000}
_PERCENTILES = {
    "mean": "result_mean_latency_ns",
    "p50": "result_50.00_percentile_latency_ns",
    "p90": "result_90.00_percentile_latency_ns",
    "p99": "result_99.00_percentile_latency_ns",
}
_CHECKS = {
    "result_min_duration_met": "the minimum duration was not met",
    "result_min_queries_met": "the minimum number of queries was not met",
    "early_stopping_met": "too few queries for early stopping",
}


def limit_seconds(seconds: float) -> float:
    """When a SingleStream run of ``seconds`` is cut off, though it lacks queries."""
    return max(10 * seconds, 60.0)


def run_loadgen(
    issue_one: Callable[[int], Any],
    count: int,
    *,
    scenario: str,
    seconds: float,
    log_dir: Path,
    issue_batch: Callable[[list[int]], Any] | None = None,
    batch: int = 1,
    max_samples: int = 2_000_000,
) -> dict[str, Any]:
    """Measure a function with LoadGen.

    Args:
        issue_one: answers the sample of an index in ``range(count)``; returns when it is done.
        count: how many different samples there are.
        scenario: "SingleStream" or "Offline".
        seconds: the least duration of the run; cut where it would take over ``max_samples``.
        log_dir: folder for LoadGen's own ``mlperf_log_summary.txt`` and ``mlperf_log_detail.txt``.
        issue_batch: answers up to ``batch`` indices at once (Offline only).
        batch: samples handed to ``issue_batch`` at a time.
        max_samples: LoadGen makes all its queries before it starts, at up to 350 bytes each, so a
            fast function would exhaust the memory on a long run.

    Returns:
        ``{scenario, batch, valid, reason, queries, samples, seconds, latency_ms, throughput}``:
        ``valid`` is LoadGen's own verdict for these settings, ``latency_ms`` is in milliseconds
        (all None for Offline, whose samples wait for each other), ``throughput`` in samples a
        second, for SingleStream without the time LoadGen spends between two queries.

    Raises:
        ZooError: LoadGen is not installed, or the scenario is unknown.
        Exception: whatever the function raised, after LoadGen has ended.
    """
    if scenario not in SCENARIOS:
        from zoo.errors import unknown

        raise unknown("scenario", scenario, SCENARIOS)
    offline = scenario == "Offline"
    if not offline:
        batch = 1
    if issue_batch is None:
        issue_batch, batch = (lambda indices: issue_one(indices[0])), 1
    first = [index % count for index in range(batch)]
    call: Callable[[list[int]], Any] = issue_batch
    interval = _fastest_ns(lambda: call(first)) / batch + BINDING_NS[scenario]
    for attempt in (1, 2, 3):
        # LoadGen makes 1.1 (Offline) or 2 (SingleStream) times the queries this interval asks for.
        planned = min(seconds, max_samples * interval / 1e9 / (1.1 if offline else 2))
        log = _run(call, count, scenario, planned, interval, Path(log_dir), batch)
        row = _read(log, scenario, planned, batch)
        if log["result_min_duration_met"] or attempt == 3:
            return row
        # The machine sped up since the interval was measured: do as LoadGen recommends.
        interval = min(interval, 1e9 / row["throughput"]) / 1.3
    raise AssertionError("unreachable")


def _fastest_ns(call: Callable[[], Any], budget_ns: int = 200_000_000) -> int:
    """The shortest of many calls: the warm-up, and what LoadGen must have queries for."""
    fastest, started = 0, time.perf_counter_ns()
    for turn in range(100_000):
        before = time.perf_counter_ns()
        call()
        now = time.perf_counter_ns()
        fastest = min(fastest, now - before) if turn else now - before
        if turn and now - started > budget_ns:
            break
    return max(fastest, 1)


def _run(
    call: Callable[[list[int]], Any],
    count: int,
    scenario: str,
    seconds: float,
    interval_ns: float,
    log_dir: Path,
    batch: int,
) -> dict[str, Any]:
    """Run LoadGen once; its detail log as ``{key: value}``."""
    lg = import_loadgen()
    log_dir.mkdir(parents=True, exist_ok=True)
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(seconds * 1000))
    settings.max_duration_ms = 0 if scenario == "Offline" else round(limit_seconds(seconds) * 1000)
    settings.min_query_count = 1 if scenario == "Offline" else MIN_QUERIES
    settings.single_stream_expected_latency_ns = max(1, int(interval_ns))
    settings.offline_expected_qps = 1e9 / interval_ns
    logs = lg.LogSettings()
    logs.log_output.outdir = str(log_dir)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False

    response, complete = lg.QuerySampleResponse, lg.QuerySamplesComplete
    failures: list[BaseException] = []

    # An exception that reaches LoadGen's C++ kills the process: keep the first one, and let the
    # remaining queries pass without work.
    def issue(ids: list[int], indices: list[int]) -> None:
        for start in range(0, len(ids), batch):
            if not failures:
                try:
                    call(indices[start : start + batch])
                except BaseException as error:
                    failures.append(error)
            complete([response(sample, 0, 0) for sample in ids[start : start + batch]])

    def issue_single(ids: list[int], indices: list[int]) -> None:
        if not failures:
            try:
                call(indices)
            except BaseException as error:
                failures.append(error)
        complete([response(ids[0], 0, 0)])

    # The "fast" binding passes lists of integers: 4 times less per sample than a list of objects.
    sut = lg.ConstructFastSUT(issue if scenario == "Offline" else issue_single, lambda: None)
    library = lg.ConstructQSL(count, count, lambda indices: None, lambda indices: None)
    try:
        # LoadGen obeys an audit.config of the working directory unless told of another.
        lg.StartTestWithLogSettings(sut, library, settings, logs, str(log_dir / "audit.config"))
    finally:
        lg.DestroyQSL(library)
        lg.DestroyFastSUT(sut)
    if failures:
        raise failures[0]
    for name in ("mlperf_log_accuracy.json", "mlperf_log_trace.json"):  # empty in this mode
        (log_dir / name).unlink(missing_ok=True)
    log = {}
    with (log_dir / "mlperf_log_detail.txt").open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            log[entry["key"]] = entry["value"]
    return log


def _read(log: dict[str, Any], scenario: str, planned: float, batch: int) -> dict[str, Any]:
    offline = scenario == "Offline"
    queries = int(log["result_query_count"])
    samples = queries * int(log["generated_samples_per_query"])
    if offline:
        throughput = duration_rate = float(log["result_samples_per_second"])
    else:
        throughput = float(log["result_qps_without_loadgen_overhead"])
        duration_rate = float(log["result_qps_with_loadgen_overhead"])
    valid = log["result_validity"] == "VALID"
    reasons = []
    if not valid:
        reasons += [text for key, text in _CHECKS.items() if not log.get(key, True)]
        for key in ("result_invalid_reason", "early_stopping_result"):
            reasons += [" ".join(log[key].replace("*", " ").split())] if log.get(key) else []
        reasons = ["LoadGen: " + "; ".join(reasons or ["INVALID, no reason given"])]
    if planned < OFFICIAL_SECONDS:
        reasons.append(
            f"short run: {planned:.3g} s of the {OFFICIAL_SECONDS:g} s an official result needs"
        )
    if offline:
        reasons.append("no latencies: Offline sends all samples as one query")
    return {
        "scenario": scenario,
        "batch": batch,
        "valid": valid,
        "reason": "; ".join(reasons) or None,
        "queries": queries,
        "samples": samples,
        "seconds": samples / duration_rate,
        "latency_ms": {
            name: None if offline else log[key] / 1e6 for name, key in _PERCENTILES.items()
        },
        "throughput": throughput,
    }


def import_loadgen() -> Any:
    """The ``mlperf_loadgen`` module. Raises ``ZooError`` with the way to get it."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        from zoo.errors import FAILURE, ZooError

        raise ZooError(
            "MLCommons LoadGen, which keeps the time, cannot be imported.",
            expected="the module mlperf_loadgen",
            received=str(error),
            hint="On Linux: pip install mlcommons-loadgen. Elsewhere there are no wheels: run in a "
            "Linux container, or build github.com/mlcommons/inference/tree/master/loadgen.",
            kind="missing_dependency",
            exit_code=FAILURE,
        ) from error
    return mlperf_loadgen
