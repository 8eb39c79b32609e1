"""Synthetic runs for the report's tests: simulated answers, and documents computed from them."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from zoo import schema
from zoo_report import Bundle

CREATED = "2026-03-04T05:06:07+00:00"
RECIPES = ("float16", "dynamic", "int8", "prune:0.8", "prune:0.8+int8", "prune:2by4+dynamic")
# How each recipe changes answers: (share of rows re-answered at random, size, latency in ms).
EFFECTS = {
    "base": (0.0, 113_000, 0.021),
    "float16": (0.0, 58_000, 0.020),
    "dynamic": (0.001, 33_400, 0.017),
    "int8": (0.003, 30_700, 0.015),
    "prune:0.8": (0.008, 113_000, 0.021),
    "prune:0.8+int8": (0.012, 30_700, 0.015),
    "prune:2by4+dynamic": (0.010, 33_400, 0.017),
}
ADULT = {
    "sex": {"Female": 0.33, "Male": 0.67},
    "race": {"Amer-Indian-Eskimo": 0.01, "Asian-Pac-Islander": 0.03, "Black": 0.096,
             "Other": 0.008, "White": 0.856},
    "age band": {"17-24": 0.18, "25-31": 0.18, "32-37": 0.14, "38-43": 0.14, "44-50": 0.14,
                 "51-57": 0.1, "58-65": 0.08, "66-75": 0.03, "76-90": 0.01},
}  # fmt: skip
DIGITS = {"digit": {str(k): 0.1 for k in range(10)}}


def slug(recipe: str) -> str:
    return recipe.replace(":", "-").replace("+", "_")


def share(hits: np.ndarray) -> dict[str, Any]:
    """Mean with a normal interval."""
    if not len(hits):
        return {"value": None, "ci_low": None, "ci_high": None, "reason": "no such rows"}
    mean, half = float(hits.mean()), 1.96 * float(hits.std()) / math.sqrt(len(hits))
    return {"value": mean, "ci_low": mean - half, "ci_high": mean + half}


def measures(task: str, y: np.ndarray, p: np.ndarray) -> dict[str, dict[str, Any]]:
    if task == "regression":
        return {"mae": share(np.abs(y - p)), "mean_prediction": share(p)}
    found = {"accuracy": share((y == p).astype(float))}
    if task == "binary":
        found["selection_rate"] = share((p == 1).astype(float))
        found["true_positive_rate"] = share((p[y == 1] == 1).astype(float))
        found["false_positive_rate"] = share((p[y == 0] == 1).astype(float))
    return found


def simulate(task: str, attributes: dict, recipes: tuple[str, ...], n: int, seed: int, harm: float):
    """Labels, groups, and each variant's answers; ``harm`` of women's positives are lost by int8."""
    rng = np.random.default_rng(seed)
    groups = {
        name: rng.choice(
            list(shares), size=n, p=np.array(list(shares.values())) / sum(shares.values())
        )
        for name, shares in attributes.items()
    }
    answers = {}
    if task == "regression":
        y = rng.normal(350, 20, n)
        first = y + rng.normal(0, 2.5, n)
    elif task == "multiclass":
        y = groups["digit"].astype(int)
        first = np.where(rng.random(n) < 0.04, rng.integers(0, 10, n), y)
    else:
        y = (
            rng.random(n)
            < np.where(groups.get("sex", np.array(["Male"] * n)) == "Female", 0.11, 0.3)
        ).astype(int)
        first = np.where(rng.random(n) < 0.15, 1 - y, y)
    for recipe in ("base", *recipes):
        moved = rng.random(n) < EFFECTS[recipe][0]
        if task == "regression":
            answers[recipe] = first + moved * rng.normal(0, 3, n)
        else:
            top = 10 if task == "multiclass" else 2
            answers[recipe] = np.where(moved, rng.integers(0, top, n), first)
        if recipe == "int8" and harm and "sex" in groups:
            lost = (groups["sex"] == "Female") & (y == 1) & (rng.random(n) < harm)
            answers[recipe] = np.where(lost, 0, answers[recipe])
    return y, groups, answers


def changes(task: str, name: str, y, groups, base, other) -> list[dict[str, Any]]:
    """Paired changes with normal intervals and Bonferroni's adjustment (simple and valid)."""
    rows = []
    places = [("(all)", "(all)", np.ones(len(y), bool))]
    places += [(a, g, v == g) for a, v in groups.items() for g in np.unique(v)]
    for attribute, group, here in places:
        before, after = measures(task, y[here], base[here]), measures(task, y[here], other[here])
        for metric in before:
            if metric in ("true_positive_rate", "false_positive_rate"):
                rows_of = here & (y == (metric == "true_positive_rate"))
            else:
                rows_of = here
            score = {
                "accuracy": lambda p, k: (p == y[k]) * 1.0,
                "mae": lambda p, k: np.abs(p - y[k]),
            }.get(metric, lambda p, k: p * 1.0)
            d = score(other[rows_of], rows_of) - score(base[rows_of], rows_of)
            if not len(d):
                rows.append({"variant": name, "attribute": attribute, "group": group, "n": 0,
                             "metric": metric, "base": None, "value": None, "delta": None,
                             "ci_low": None, "ci_high": None, "p": None, "p_adjusted": None,
                             "reason": "no such rows", "flips": None})  # fmt: skip
                continue
            se = d.std() / math.sqrt(len(d))
            p = math.erfc(abs(d.mean()) / se / math.sqrt(2)) if se else 1.0
            flips = None
            if task != "regression":
                right, now = base[here] == y[here], other[here] == y[here]
                flips = {"correct_to_wrong": int((right & ~now).sum()),
                         "wrong_to_correct": int((~right & now).sum())}  # fmt: skip
            rows.append({"variant": name, "attribute": attribute, "group": str(group),
                         "n": int(rows_of.sum()), "metric": metric,
                         "base": before[metric]["value"], "value": after[metric]["value"],
                         "delta": float(d.mean()), "ci_low": float(d.mean() - 1.96 * se),
                         "ci_high": float(d.mean() + 1.96 * se), "p": p, "flips": flips})  # fmt: skip
    tested = len(rows)
    for row in rows:
        if row["p"] is not None:
            row["p_adjusted"] = min(1.0, row["p"] * tested)
    for attribute in groups:
        metric = "mae_difference" if task == "regression" else "accuracy_difference"
        rows.append({"variant": name, "attribute": attribute, "group": "(gap)", "n": len(y),
                     "metric": metric, "base": 0.05, "value": 0.052, "delta": 0.002,
                     "ci_low": -0.004, "ci_high": 0.008, "p": None, "p_adjusted": None,
                     "reason": "no exact test of a gap", "flips": None})  # fmt: skip
    return rows


def fairness(task: str, name: str, y, groups, p) -> dict[str, Any]:
    attributes = {}
    for attribute, values in groups.items():
        rows = []
        for group in np.unique(values):
            here = values == group
            found = measures(task, y[here], p[here])
            if here.sum() < 10:
                why = {
                    "value": None,
                    "ci_low": None,
                    "ci_high": None,
                    "reason": "fewer than 10 rows",
                }
                found = dict.fromkeys(found, why)
            rows.append({"group": str(group), "n": int(here.sum()), "metrics": found})
        main = "mae" if task == "regression" else "accuracy"
        known = [r for r in rows if r["metrics"][main]["value"] is not None]
        known.sort(key=lambda r: r["metrics"][main]["value"], reverse=main == "mae")
        values_of = [r["metrics"][main]["value"] for r in known]
        gap = abs(values_of[0] - values_of[-1])
        worst = "worst_group_mae" if main == "mae" else "worst_group_accuracy"
        attributes[attribute] = {
            "groups": rows,
            "disparities": {
                f"{main}_difference": {"value": gap, "ci_low": gap * 0.6, "ci_high": gap * 1.5,
                                       "between": [known[0]["group"], known[-1]["group"]]},
                worst: {"value": values_of[0], "ci_low": values_of[0] - 0.02,
                        "ci_high": values_of[0] + 0.02},
                "worst_group": {"value": known[0]["group"]},
                "demographic_parity_ratio": {"value": None, "ci_low": None, "ci_high": None,
                                             "reason": "a group has no positive prediction"},
            },
        }  # fmt: skip
    crossed = []
    if len(groups) > 1:
        (a, first), (b, second) = list(groups.items())[:2]
        for g in np.unique(first):
            for h in np.unique(second)[:3]:
                here = (first == g) & (second == h)
                if here.sum() >= 10:
                    found = measures(task, y[here], p[here])
                    crossed.append({"attributes": [a, b], "group": [str(g), str(h)],
                                    "n": int(here.sum()), "metrics": found})  # fmt: skip
    return schema.FairnessResult(
        variant=name, split="test", task=task, positive=">50K" if task == "binary" else None,
        attributes=attributes, intersections=crossed, artifact="model.tflite", created=CREATED,
        warnings=["race = Other has few rows: its intervals are wide"] if "race" in groups else [],
    ).model_dump()  # fmt: skip


def benchmarks(name: str, recipe: str, size: int) -> list[dict[str, Any]]:
    latency = EFFECTS[recipe][2]
    shared = {"run": "demo", "model": "demo", "variant": name, "runtime": "litert", "batch": 1,
              "threads": 1, "valid": True, "bytes": size, "created": CREATED,
              "reason": "short run: 3 s of the 600 s an official result needs"}  # fmt: skip
    return [
        schema.BenchmarkResult(
            **shared, scenario="SingleStream", queries=90_000, seconds=3.0, load_ms=1.9,
            latency_ms={"mean": latency, "p50": latency * 0.95, "p90": latency * 1.1, "p99": latency * 1.6},
            peak_memory_mb=48.2, throughput=1000 / latency,
        ).model_dump(),
        schema.BenchmarkResult(
            **shared, scenario="Offline", queries=1, seconds=3.1, throughput=1100 / latency,
        ).model_dump(),
    ]  # fmt: skip


def explanation(name: str, task: str, seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        names = [f"r{r}c{c}" for r in range(7) for c in range(7)]
        outputs = ["predicted class"]
        images = np.zeros((4, 28, 28, 1), np.uint8)
        y, x = np.mgrid[:28, :28]
        for k in range(4):
            ring = np.abs(np.hypot(y - 14, x - 14 - k) - 8)
            images[k, :, :, 0] = np.clip(255 - 90 * ring, 0, 255)
        dense = rng.normal(0, 1, (4, 28, 28, 1, 1)) * (images[..., None] / 255.0)
        extra = {"images": images, "dense": dense.astype(np.float32),
                 "truth": np.array(["0", "0", "0", "6"]), "predicted": np.array(["0", "0", "0", "0"])}  # fmt: skip
    else:
        names = ["capital-gain", "marital-status", "education-num", "age", "hours-per-week",
                 "occupation", "relationship", "capital-loss", "workclass", "native-country",
                 "education", "fnlwgt"]  # fmt: skip
        outputs, extra = ["output"], {}
    scale = 2.0 ** -np.arange(len(names))[None, :, None] if task != "multiclass" else 1.0
    display = rng.random((60, len(names)))
    display[:, 1] = np.nan
    values = (np.nan_to_num(display, nan=0.5)[:, :, None] - 0.5) * 4 * scale
    values = values + rng.normal(0, 0.2, (60, len(names), len(outputs))) * scale
    base = np.full(len(outputs), -1.0)
    arrays = {"row": np.arange(60), "values": values, "base": base,
              "output": base + values.sum(axis=1), "names": np.array(names),
              "outputs": np.array(outputs), "display": display, **extra}  # fmt: skip
    importance = np.abs(values).mean(axis=(0, 2))
    features = [
        {"name": names[k], "importance": float(importance[k])} for k in np.argsort(-importance)
    ]
    result = schema.ExplainResult(
        variant=name, method="deep" if name == "base" else "permutation", split="test",
        why_method="every layer is one that DeepSHAP handles exactly: Dense, ReLU, Dropout",
        space="value" if task == "regression" else "logit", artifact="model.tflite", samples=60,
        background=50 if name == "base" else None, seconds=0.8, samples_per_second=75.0,
        additive=True, additivity_error={"max": 3.1e-6, "mean": 4e-7}, features=features,
        quality={"deletion_auc": 0.21, "random_auc": 0.55, "stability": None}, created=CREATED,
    )  # fmt: skip
    return result.model_dump(), arrays


def build(
    task: str = "binary",
    recipes: tuple[str, ...] = ("float16", "dynamic", "int8"),
    *,
    attributes: dict | None = None,
    n: int = 7000,
    seed: int = 0,
    harm: float = 0.0,
    private: bool = False,
) -> Bundle:
    """A whole audited run."""
    default = {
        "binary": ADULT,
        "multiclass": DIGITS,
        "regression": {"season": {"summer": 1, "winter": 1}},
    }
    attributes = default[task] if attributes is None else attributes
    y, groups, answers = simulate(task, attributes, recipes, n, seed, harm)
    main = "mae" if task == "regression" else "accuracy"
    variants, deltas, drift = {}, [], []
    for recipe in ("base", *recipes):
        name, size = slug(recipe), EFFECTS[recipe][1]
        metrics = measures(task, y, answers[recipe])
        if task != "regression":
            metrics["roc_auc"] = {"value": 0.907, "ci_low": 0.902, "ci_high": 0.912}
            metrics["log_loss"] = {"value": 0.317, "ci_low": 0.309, "ci_high": 0.325}
        result, arrays = explanation(name, task, seed)
        variants[name] = {
            "variant": schema.VariantDocument(
                variant=name, recipe=recipe, kind="base" if recipe == "base" else "transform",
                parent=None if recipe == "base" else {"variant": "base", "sha256": "0" * 64},
                artifact="model.tflite", bytes=size, bytes_gzip=int(size * 0.9), created=CREATED,
                sparsity=0.8 if "prune" in recipe else None,
                parity={"max_abs": 1.2e-6, "n": 32, "against": "keras"},
                metrics={m: e["value"] for m, e in metrics.items()},
            ).model_dump(),
            "metrics": {"results": [{"variant": name, "split": "test", "n": n, "metrics": metrics}]},
            "benchmark": benchmarks(name, recipe, size),
            "explain": [result],
            "fairness": [fairness(task, name, y, groups, answers[recipe])],
            "arrays": arrays,
            "log": [],
        }  # fmt: skip
        if recipe != "base":
            deltas += changes(task, name, y, groups, answers["base"], answers[recipe])
            drift.append({"variant": name, "method": "permutation", "n": 60, "top": 5,
                          "topk_jaccard": 1.0, "spearman": 0.993, "sample_cosine": 0.981,
                          "ci_low": 0.974, "ci_high": 0.988, "sign_flips": 0.01})  # fmt: skip
    log = [
        {
            "epoch": e,
            "loss": 0.3 + 0.4 / e,
            "val_loss": 0.32 + 0.35 / e,
            f"val_{main}": 0.85 - 0.1 / e,
        }
        for e in range(1, 16)
    ]
    reached = variants["base"]["variant"]["metrics"][main]
    model, data = {"binary": ("mlp", "adult"), "multiclass": ("cnn", "mnist_5k"),
                   "regression": ("mlp", "co2")}[task]  # fmt: skip
    classes = {"binary": ["<=50K", ">50K"], "multiclass": [str(k) for k in range(10)]}.get(task, [])
    run = schema.RunDocument(
        run=f"{model}-{data}-demo",
        spec={"name": model, "version": "1", "family": "dense", "task": task, "structure": "ab12",
              "source": "Rumelhart, Hinton & Williams, Nature 323, 1986", "license": "Apache-2.0",
              "params": 22_145, "skips": {"qat": "it has no convolution to fold"}},
        config={"widths": [128, 64], "dropout": 0.2}, params=12_345,
        loss=dict.fromkeys(("training", "validation"), "nats"),
        options={"epochs": 15, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3},
        data={"name": data, "kind": "tabular", "task": task, "rows": n * 6, "target": "income",
              "sizes": {"train": n * 4, "val": n, "test": n}, "classes": classes,
              "class_counts": [n * 6 // max(1, len(classes))] * len(classes),
              "positive": ">50K" if task == "binary" else None, "sha256": "9f" * 32,
              "groups": {a: {str(g): int((v == g).sum()) * 6 for g in np.unique(v)} for a, v in groups.items()},
              "columns": [{"name": c, "kind": "number"} for c in ("age", "education", "hours-per-week")],
              "license": "CC BY 4.0", "source": "Becker & Kohavi 1996, UCI", "notes": [],
              "request": {"data": data, "sensitive": [], "target": None, "split_seed": 0}},
        command="zoo train mlp --data adult --set hidden=64,32", experiment="e1" * 8, seed=0, status="done", created=CREATED,
        versions={"python": "3.11.9", "keras": "3.15.1", "tensorflow": "2.21.0"},
        device={"cpu": "Example CPU", "cores": 2}, git="abc1234",
        result={"epochs": 15, "seconds": 10.4, "samples_per_second": 41_000.0, "execution": "graph",
                "advice": {"verdict": "overfitting", "why": "the validation loss rose <b>",
                           "change": ["--set patience=3 stops earlier"]},
                "metrics": {main: reached}, "baseline": {"name": "logistic regression", "metrics": {main: 0.847}},
                "target": {"metric": main, "value": 0.85, "reached": reached, "hit": reached >= 0.85}},
    ).model_dump()  # fmt: skip
    audit = schema.AuditDocument(
        run=run["run"], report="report.html", variants=[], deltas=deltas, drift=drift, passed=True,
        noise_floor={"seeds": 1, "reason": "only 1 seed was trained; at least 3 are needed"},
        gates=[{"name": "accuracy_drop", "passed": True, "expected": "<= 0.01", "received": 0.001}],
        created=CREATED,
    ).model_dump()  # fmt: skip
    return Bundle(run, variants, audit, log=log, private=private)


def write(bundle: Bundle, folder: Path) -> Path:
    """Lay a bundle out as a run's folder, each result bound to its variant's artefact."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(schema.dump(bundle.run))
    for name, found in bundle.variants.items():
        place = folder / name
        place.mkdir()
        content = f"weights of {name}".encode()
        (place / "model.tflite").write_bytes(content)
        inputs = [{"path": f"{name}/model.tflite", "sha256": hashlib.sha256(content).hexdigest()}]
        (place / "variant.json").write_text(schema.dump({**found["variant"], "inputs": inputs}))
        for kind in ("benchmark", "explain", "fairness"):
            if found[kind]:
                rows = [{**row, "inputs": inputs} for row in found[kind]]
                (place / f"{kind}.json").write_text(
                    schema.dump({"schema_version": 1, "results": rows})
                )
        if found["metrics"]:
            (place / "metrics.json").write_text(
                schema.dump({"schema_version": 1, **found["metrics"]})
            )
        if found["arrays"]:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **found["arrays"])
            (place / "explain.npz").write_bytes(buffer.getvalue())
    if bundle.audit:
        (folder / "audit.json").write_text(schema.dump(bundle.audit))
    if bundle.log:
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bundle.log))
    return folder
