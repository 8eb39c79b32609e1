"""Group metrics with bootstrap intervals: zoo_explain.fairness against fairlearn's MetricFrame.

    python benchmarks/fairness_bootstrap.py [--json] [--out benchmarks/results/fairness_bootstrap.json]

The same ten metrics in the same four groups of the same 10,000 synthetic rows. Both sides are timed
in turn, so that a slow moment of the machine hits both. Ours is a whole audit of one attribute:
values (which are fairlearn's), 1,000 resamples, intervals, and the disparities, which fairlearn
gives no interval of. fairlearn is run with few resamples; its time for 1,000 is its time without
any plus 1,000 times what each one added. Then the intervals are compared, beside what two runs of
our own with as few resamples as fairlearn's differ by: Monte Carlo error alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fairlearn.metrics as fair
import numpy as np
import sklearn.metrics as learn

from zoo.metrics import sample_log_loss
from zoo.predictions import Predictions
from zoo_explain.fairness import audit

METRICS = {
    "accuracy": learn.accuracy_score,
    "balanced_accuracy": learn.balanced_accuracy_score,
    "f1_macro": partial(learn.f1_score, average="macro"),
    "log_loss": lambda y_true, y_pred, loss: fair.mean_prediction(y_true, loss),
    "selection_rate": fair.selection_rate,
    "true_positive_rate": fair.true_positive_rate,
    "false_positive_rate": fair.false_positive_rate,
    "true_negative_rate": fair.true_negative_rate,
    "false_negative_rate": fair.false_negative_rate,
    "precision": learn.precision_score,
}


def synthetic(rows: int, seed: int = 0) -> Predictions:
    """Binary predictions of about 80 % accuracy, in groups of 40, 30, 20 and 10 %."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1])
    y = (rng.random(rows) < 0.3).astype(np.int64)
    logit = rng.normal(size=rows) + 1.6 * y - 1.0 + 0.2 * (groups == "d")
    s = 1 / (1 + np.exp(-logit))
    p = (s > 0.5).astype(np.int64)
    scores = np.stack([1 - s, s], axis=1)
    return Predictions(np.arange(rows), y, p, scores, ("no", "yes"), {"group": groups})


def ours(data: Predictions, resamples: int, seed: int = 0) -> dict[str, Any]:
    found = audit(data, task="binary", attributes=["group"], resamples=resamples, seed=seed)
    return found["attributes"]["group"]


def theirs(data: Predictions, resamples: int | None) -> fair.MetricFrame:
    options = {"n_boot": resamples, "ci_quantiles": [0.025, 0.975], "random_state": 0}
    frame = fair.MetricFrame(
        metrics=METRICS,
        y_true=data.y_true,
        y_pred=data.y_pred,
        sensitive_features=data.groups["group"],
        sample_params={"log_loss": {"loss": sample_log_loss(data.y_true, data.scores)}},
        **(options if resamples else {}),
    )
    frame.by_group  # noqa: B018 - the values, which are computed with the frame
    return frame


def seconds(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def timings(data: Predictions, pairs: int, resamples: int, few: int) -> dict[str, Any]:
    """Seconds of each side in turn, and their ratio for as many resamples."""
    ours(data, 20)  # imports
    theirs(data, None)
    rows = []
    for _ in range(pairs):
        own = seconds(ours, data, resamples)
        plain, boot = seconds(theirs, data, None), seconds(theirs, data, few)
        peer = plain + (boot - plain) / few * resamples
        rows.append({"ours": own, "fairlearn": peer, "ratio": peer / own})
    ratios = [row["ratio"] for row in rows]
    return {
        "pairs": rows,
        "ours_seconds": statistics.median(row["ours"] for row in rows),
        "fairlearn_seconds": statistics.median(row["fairlearn"] for row in rows),
        "ratio": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
    }


def agreement(data: Predictions, resamples: int, few: int) -> dict[str, Any]:
    """How far the ends of the intervals are apart, in widths of the interval."""
    low, high = theirs(data, few).by_group_ci
    frames = {
        "fairlearn": lambda group, name: (low.loc[group, name], high.loc[group, name]),
        "monte_carlo": _lookup(ours(data, few, seed=1)),
    }
    gaps: dict[str, list[float]] = {name: [] for name in frames}
    for row in ours(data, resamples)["groups"]:
        for metric in METRICS:
            mine = row["metrics"][metric]
            if mine["interval"] != "bootstrap":
                raise SystemExit(f"{metric} of {row['group']} has no bootstrap interval to compare")
            width = mine["ci_high"] - mine["ci_low"]
            for name, frame in frames.items():
                ends = frame(row["group"], metric)
                gaps[name] += [
                    abs(end - mine[key]) / width
                    for end, key in zip(ends, ("ci_low", "ci_high"), strict=True)
                ]
    return {
        "intervals": len(METRICS) * 4,
        "unit": "widths of the interval",
        **{
            name: {"mean": float(np.mean(values)), "max": float(np.max(values))}
            for name, values in gaps.items()
        },
    }


def _lookup(found: dict[str, Any]) -> Any:
    by_group = {row["group"]: row["metrics"] for row in found["groups"]}
    return lambda group, name: (by_group[group][name]["ci_low"], by_group[group][name]["ci_high"])


def device() -> dict[str, Any]:
    import os

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
    return {"processor": name, "cpus": os.cpu_count(), "system": platform.system()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--fairlearn-resamples", type=int, default=20, help="in each timed pair")
    parser.add_argument("--agreement-resamples", type=int, default=300, help="of fairlearn")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the document")
    parser.add_argument("--out", type=Path, help="write the document")
    options = parser.parse_args()
    data = synthetic(options.rows)
    document = {
        "what": "group metrics with bootstrap intervals, against fairlearn's MetricFrame(n_boot)",
        "date": datetime.now(UTC).date().isoformat(),
        "device": device(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("fairlearn", "scikit-learn", "numpy", "pandas")},
        },
        "settings": {
            "rows": options.rows,
            "groups": 4,
            "metrics": list(METRICS),
            "resamples": options.resamples,
            "fairlearn_resamples_timed": options.fairlearn_resamples,
            "fairlearn_resamples_compared": options.agreement_resamples,
        },
        "time": timings(data, options.pairs, options.resamples, options.fairlearn_resamples),
        "agreement": agreement(data, options.resamples, options.agreement_resamples),
    }
    text = json.dumps(document, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    if options.json:
        sys.stdout.write(text)
        return
    spent, apart = document["time"], document["agreement"]
    print(
        f"{options.resamples} resamples of {options.rows} rows, 4 groups, {len(METRICS)} metrics\n"
        f"  glasszoo  {spent['ours_seconds']:8.2f} s\n"
        f"  fairlearn {spent['fairlearn_seconds']:8.2f} s (from {options.fairlearn_resamples})\n"
        "  ratio     {median:8.1f}   (from {min:.1f} to {max:.1f})\n".format(**spent["ratio"])
        + f"ends of intervals apart, in widths: mean {apart['fairlearn']['mean']:.3f}, "
        f"max {apart['fairlearn']['max']:.3f}; Monte Carlo error alone: "
        f"mean {apart['monte_carlo']['mean']:.3f}, max {apart['monte_carlo']['max']:.3f}"
    )


if __name__ == "__main__":
    main()
