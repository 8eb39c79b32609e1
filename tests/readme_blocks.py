"""The generated blocks of the documents: ``python tests/readme_blocks.py --write`` renews them.

A block stands between ``<!-- block:NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from compression_plots import plots

from zoo_report.text import metric_text

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
#: Documents with generated blocks.
DOCUMENTS = (
    README,
    ROOT / "zoo" / "compress" / "README.md",
    ROOT / "benchmarks" / "tutorials" / "README.md",
)
GALLERY = ROOT / "reports" / "gallery" / "mlp-adult"
BLOCK = re.compile(r"(<!-- block:(\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |\n" for line in lines
    )


def models_block() -> str:
    from zoo.registry import models

    return table(
        ["model", "family", "data kinds", "tasks", "parameters", "trained on", "target, or published",
         "source"],
        [
            [f"`{s.name}`", s.family, ", ".join(s.kinds), ", ".join((s.task, *s.tasks)),
             f"{s.params:,}", s.data,
             f"{s.target.metric} {s.target.value}" if s.target else s.published, s.source]
            for s in sorted(models().specs.values(), key=lambda s: s.name)
        ],
    )  # fmt: skip


def data_block() -> str:
    from zoo.registry import datasets

    return table(
        ["data", "kind", "rows", "question", "groups", "licence", "source"],
        [
            [f"`{s.name}`", s.kind, f"{s.rows:,}", s.description, ", ".join(s.groups), s.license,
             s.source]
            for s in sorted(datasets().specs.values(), key=lambda s: s.name)
        ],
    )  # fmt: skip


def recipes_block() -> str:
    from zoo.compress.steps import STEPS

    return table(
        ["step", "what it does", "how", "source"],
        [
            [f"`{s.name}{':' + s.argument if s.argument else ''}`", s.help,
             {"retrain": "trains on", "transform": "converts"}[s.kind], s.source]
            for s in STEPS.values() if not s.mitigates
        ],
    )  # fmt: skip


def mitigations_block() -> str:
    """The steps that mitigate, and what each did over the seeds of its benchmark."""
    from zoo.compress.steps import STEPS

    found = json.loads((ROOT / "benchmarks" / "results" / "mitigation.json").read_text())
    lines = []
    for rows in zip(*found["seeds"].values(), strict=True):

        def mean(name: str, rows: tuple = rows) -> str:
            values = [row[name] for row in rows]
            return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"

        lines.append([
            f"`{rows[0]['method']}`", rows[0]["disparity"], mean("disparity_before"),
            mean("disparity_after"), mean("accuracy_before"), mean("accuracy_after"),
            "yes" if rows[0]["needs_groups"] else "no",
        ])  # fmt: skip
    return (
        table(["step", "what it does", "source"],
              [[f"`{s.name}:{s.argument}`", s.help, s.source] for s in STEPS.values() if s.mitigates])
        + "\n"
        + table(["method", "disparity", "before", "after", "accuracy before", "after", "needs groups"],
                lines)
        + f"\n`{found['model']}` on `{found['data']}`, attribute {found['attribute']}, test rows, "
        f"{len(found['seeds'])} seeds, ± their standard deviation. {found['device']}, TensorFlow "
        f"{found['versions']['tensorflow']}, {found['created'][:10]}; `python benchmarks/mitigation.py`.\n"
    )  # fmt: skip


def compression_block() -> str:
    """Every model's recipes, its plot, and what the numbers say about the claims."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "compression.json").read_text())
    parts = []
    for model in rows:
        metric = model["recipes"][0]["metric"]
        lines = [
            [f"`{row['recipe']}`", row["seeds"], f"{row['value']:.4f}", _change(row, "drop", sd=True),
             "-" if row["worst_group"] is None else f"{row['worst_group']:.4f}",
             _change(row, "worst_group_drop", sd=True), f"{row['bytes_ratio']:.2f}",
             f"{row['bytes_gzip_ratio']:.2f}",
             "-" if row["p90_ms_ratio"] is None else f"{row['p90_ms_ratio']:.2f}"]
            for row in model["recipes"] if row["seeds"]
        ]  # fmt: skip
        failed = [f"`{r['recipe']}`: {r['error']}" for r in model["recipes"] if not r["seeds"]]
        parts.append(
            f"### `{model['model']}`\n\n![{model['model']}: losses against sizes, with the Pareto "
            f"fronts](../../benchmarks/results/compression-{model['model']}.svg)\n\n"
            + table(["recipe", "seeds", metric, "loss", "worst group", "largest loss of a group",
                     "size", "zipped", "p90"], lines)
            + "".join(f"\nFailed: {text}\n" for text in failed)
            + f"\n{model['device']}, TensorFlow {model['versions']['tensorflow']}, "
            f"{model['created'][:10]}.\n\n"
        )  # fmt: skip
    return (
        "A loss is counted against `base` of the same seed on the same test rows, in points of a share "
        "or in the metric's own unit (below zero: a gain); ± is the standard deviation over seeds. "
        "Sizes and p90 are shares of `base`'s. With few seeds a difference under a point is no "
        "finding.\n"
        "`python benchmarks/compression.py` measures it again, with `--check` it says which claims "
        "hold.\n\n" + "".join(parts)
    )


def _change(row: dict, name: str, sd: bool = False) -> str:
    """A change of a share in points, of another metric as it is; with ``sd`` its deviation, too."""
    if row[name] is None:
        return "-"
    factor, digits = (100, 2) if metric_text(row["metric"]).percent else (1, 3)
    spread = row.get(f"{name}_sd") if sd else None
    told = f"{factor * row[name]:+.{digits}f}"
    return told + ("" if spread is None else f" ± {factor * spread:.{digits}f}")


def distillation_block() -> str:
    """What a teacher gives a smaller model over the same training without one."""

    def over(d: dict) -> str:
        ends = (
            "" if d["ci_low"] is None else f" [{100 * d['ci_low']:+.2f}, {100 * d['ci_high']:+.2f}]"
        )
        return f"{100 * d['mean']:+.2f}{ends}"

    def share(found: list, seeds: list) -> str:
        fewer = "" if len(found) == len(seeds) else f" ({len(found)} of {len(seeds)} seeds)"
        return f"{statistics.mean(found):.3f}{fewer}" if found else "-"

    rows = json.loads((ROOT / "benchmarks" / "results" / "distillation.json").read_text())
    lines, last = [], None
    for row in rows:
        seeds = list(row["seeds"].values())
        mean = {
            side: statistics.mean(found[side]["value"] for found in seeds)
            for side in ("teacher", "alone", "taught")
        }
        ratios = {
            name: [found["taught"][name] / found["teacher"][name] for found in seeds
                   if found["taught"][name] and found["teacher"][name]]
            for name in ("bytes", "p90_ms")
        }  # fmt: skip
        lines.append([
            f"`{row['teacher']}`", f"`{row['student']}`", len(seeds), seeds[0]["teacher"]["metric"],
            *(f"{value:.4f}" for value in mean.values()), over(row["gained"]["value"]),
            over(row["gained"]["worst_group"]),
            *(share(found, seeds) for found in ratios.values()),
        ])  # fmt: skip
        last = max(seeds, key=lambda found: found["created"])
    assert last is not None
    return (
        table(["teacher", "student", "seeds", "metric", "teacher's", "student alone", "taught",
               "gain, points", "worst group's", "size", "p90"], lines)
        + "\nAlone and taught from the same random start, on the same rows, by the same options; gains "
        "are paired by seed, with 95 % intervals where there are several seeds. Size and p90 are shares "
        f"of the teacher's. {last['device']}, TensorFlow {last['versions']['tensorflow']}, "
        f"{last['created'][:10]}; `python benchmarks/distillation.py`.\n"
    )  # fmt: skip


def shortly_block() -> str:
    """What a few recipes cost and save, one line a model."""
    shown = ("int8", "prune:0.8", "prune:0.8+qat+int8")
    lines = []
    for model in json.loads((ROOT / "benchmarks" / "results" / "compression.json").read_text()):
        found = {row["recipe"]: row for row in model["recipes"] if row["seeds"]}
        for recipe in shown:
            if recipe in found:
                row = found[recipe]
                lines.append(
                    [f"`{model['model']}`", f"`{recipe}`", row["metric"],
                     _change(row, "drop"), _change(row, "worst_group_drop"),
                     f"{row['bytes_ratio']:.2f}", f"{row['bytes_gzip_ratio']:.2f}", row["seeds"]]
                )  # fmt: skip
    heads = ["model", "recipe", "metric", "loss", "largest loss of a group", "size", "zipped size",
             "seeds"]  # fmt: skip
    return (
        "A loss against `base` is in points of a share, or in the metric's own unit; below zero it is a "
        "gain.\n\n" + table(heads, lines)
    )


def tutorials_block() -> str:
    """What each of TF-MOT's tutorials shows, and whether it is so here."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "tutorials.json").read_text())
    parts = []
    for row in rows:
        name, source = row["tutorial"], row["source"]
        figures = [
            [what, f"{mean:.4f} ± {sd:.4f}" if mean < 2 else f"{mean:,.0f} ± {sd:,.0f}"]
            for what, (mean, sd) in row["table"].items()
        ]
        shows = [
            [s["what"], f"{s['number'][0]:.3g} ± {s['number'][1]:.2g}", s["limit"],
             "yes" if s["holds"] else "no"]
            for s in row["shows"]
        ]  # fmt: skip
        parts.append(
            f"### [{name}]({source})\n\n"
            + table(["figure", f"here, {row['seeds']} seeds"], figures)
            + "\n"
            + table(["what the tutorial shows", "here", "taken to hold", "holds"], shows)
            + "\n"
        )
    machine = rows[0]
    return "".join(parts) + (
        f"{machine['device']}, TensorFlow {machine['versions']['tensorflow']}, "
        f"Keras {machine['versions']['keras']}, {machine['created'][:10]}.\n"
    )


def help_block() -> str:
    from click.testing import CliRunner

    from zoo.cli import cli

    text = CliRunner().invoke(cli, ["--help"], prog_name="zoo", terminal_width=100).output
    return f"```\n{text.rstrip()}\n```\n"


def targets_block() -> str:
    rows = json.loads((ROOT / "benchmarks" / "results" / "targets.json").read_text())
    lines = []
    for row in rows:
        for name in dict.fromkeys([row["target"]["metric"], "accuracy"]):
            if name not in row["metrics"]:
                continue
            found = row["metrics"][name]
            target = row["target"]["value"] if name == row["target"]["metric"] else "-"
            values = ", ".join(f"{v:.4f}" for v in found["values"])
            lines.append(
                [f"`{row['model']}`", name, target, f"{found['mean']:.4f} ± {found['sd']:.4f}",
                 values, f"{found['baseline']:.4f}", f"{max(row['seconds']):.0f} s"]
            )  # fmt: skip
    behind = []
    for row in rows:
        found = row["metrics"][row["target"]["metric"]]
        if metric_text(row["target"]["metric"]).direction * (found["mean"] - found["baseline"]) < 0:
            behind.append(f"`{row['model']}`")
    machine = max(rows, key=lambda row: row["created"])
    return (
        table(["model", "test metric", "target", "mean ± sd", "five seeds", "baseline",
               "training"], lines)
        + (f"\nBehind their baseline: {', '.join(behind)}.\n" if behind else "")
        + f"\n{machine['device']}, TensorFlow {machine['versions']['tensorflow']}, "
        f"Keras {machine['versions']['keras']}, {machine['created'][:10]}.\n"
    )  # fmt: skip


def pretraining_block() -> str:
    """What pre-training gives over the same net's random start, and over longer training of that."""
    found = json.loads((ROOT / "benchmarks" / "results" / "pretraining.json").read_text())
    sides = {
        "pretrained": "pre-trained",
        "scratch": "from its random start",
        "longer": "the same, up to as long as both",
        "longer_same_warmup": "the same, up to as long as both, with as short a warm-up",
    }
    lines = []
    for side, words in sides.items():
        values = [row[side]["accuracy"] for row in found["rows"]]
        over = found["differences"].get(side, {}).get("accuracy")
        lines.append([
            words, ", ".join(f"{value:.4f}" for value in values), f"{statistics.mean(values):.4f}",
            f"{100 * over['mean']:+.2f} [{100 * over['ci_low']:+.2f}, {100 * over['ci_high']:+.2f}]"
            if over else "-",
        ])  # fmt: skip
    last = found["rows"][-1]
    longest = max(
        row[side]["epochs"] for row in found["rows"] for side in sides if "longer" in side
    )
    budgets = [row["budget_epochs"] for row in found["rows"]]
    return (
        table(
            ["`bert_tiny`", "test accuracy, each seed", "mean", "pre-training gives, points"], lines
        )
        + f"\n{last['pretraining']['epochs']} epochs of pre-training, {last['pretrained']['epochs']} of "
        f"training. As long as both would be {min(budgets)} to {max(budgets)} epochs; these trainings "
        f"ended after {longest} at most, several epochs after their best one. Paired by seed, 95 % "
        f"intervals. {last['device']}, TensorFlow {last['versions']['tensorflow']}, "
        f"{last['created'][:10]}; `python benchmarks/pretraining.py`.\n"
    )


def training_block() -> str:
    from zoo.train.options import HELP, TrainOptions, choices

    named = choices()
    return table(
        ["option", "default", "what", "choices"],
        [
            [f"`{name}`", "none" if value == [] else f"`{value}`", HELP[name],
             ", ".join(f"`{choice}`" for choice in named.get(name, []))]
            for name, value in TrainOptions().document().items()
        ],
    )  # fmt: skip


def memory_block() -> str:
    found = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
    lines = [
        [
            f"{row['rows']:,}",
            f"{row['csv_bytes'] / 1e6:,.0f} MB",
            f"{row['first']['peak_bytes'] / 1e6:,.0f} MB",
            f"{row['cached']['peak_bytes'] / 1e6:,.0f} MB",
            f"{row['first']['roc_auc']:.4f}",
            f"{row['first']['baseline_roc_auc']:.4f}",
        ]
        for row in found["sizes"]
    ]
    first, cached = found["peak_ratio"]["first"], found["peak_ratio"]["cached"]
    return (
        table(["rows", "CSV", "peak, first time", "peak, again", "ROC AUC",
               "linear baseline"], lines)
        + f"\nResident memory of the whole `zoo train {found['model']} --epochs {found['epochs']}`, "
        f"{found['columns']} columns: {first:.2f} and {cached:.2f} times for {found['factor']} times the "
        f"rows (the smaller file is read whole, the larger one converted). {found['cores']} cores, "
        f"{found['memory_bytes'] / 2**30:.0f} GiB, TensorFlow {found['versions']['tensorflow']}, "
        f"{found['created'][:10]}; `python benchmarks/memory.py`.\n"
    )  # fmt: skip


def speed_block() -> str:
    rows = [
        {"peer": "`keras.Model.fit`", **row}
        for name in ("train_speed", "torch_speed")
        for row in json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    ]
    lines = [
        [
            f"`{row['model']}`" + (" with augmentation" if row.get("augment") else ""),
            row["peer"],
            _modes(row["execution"]),
            f"{row['processes']} x {row['pairs']}" if "processes" in row else str(row["pairs"]),
            f"{row['ratio']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]",
        ]
        for row in rows
    ]
    last, dates = rows[-1], sorted({row["created"][:10] for row in rows})
    return (
        table(
            [
                "`zoo train` of",
                "against",
                "execution, steps a call",
                "pairs",
                "rate over rate [95 %]",
            ],
            lines,
        )
        + f"\n{last['device']}, {last['cores']} cores, TensorFlow {last['versions']['tensorflow']}, "
        f"PyTorch {last['versions']['torch']}, {' to '.join(dates)}.\n"
    )


def _modes(chosen: Any) -> str:
    """One process's execution, or those of several: their kinds, and how many steps a call."""
    modes = [one["mode"].split(":") for one in (chosen if isinstance(chosen, list) else [chosen])]
    shown = []
    for kind in sorted({mode[0] for mode in modes}):
        steps = sorted(int(mode[1]) for mode in modes if mode[0] == kind)
        shown.append(f"{kind}, {steps[0]}" + (f" to {steps[-1]}" if steps[-1] > steps[0] else ""))
    return "; ".join(shown)


def demo_block() -> str:
    return f"```\n{(GALLERY / 'printed.txt').read_text().rstrip()}\n```\n"


BLOCKS = {
    "models": models_block,
    "data": data_block,
    "recipes": recipes_block,
    "compression": compression_block,
    "shortly": shortly_block,
    "tutorials": tutorials_block,
    "help": help_block,
    "targets": targets_block,
    "pretraining": pretraining_block,
    "distillation": distillation_block,
    "mitigations": mitigations_block,
    "training": training_block,
    "memory": memory_block,
    "speed": speed_block,
    "demo": demo_block,
}


def renewed(text: str) -> str:
    """A document with every block generated anew."""
    return BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[4], text)


def generated() -> dict[Path, str]:
    """Every generated file as it should be: documents and plots."""
    made = {path: renewed(path.read_text(encoding="utf-8")) for path in DOCUMENTS}
    return made | plots()


if __name__ == "__main__":
    stale = [
        path for path, text in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]  # fmt: skip
    if "--write" in sys.argv:
        for path in stale:
            path.write_text(generated()[path], encoding="utf-8")
    elif stale:
        sys.exit(f"{', '.join(path.name for path in stale)}: not up to date: make docs")
