"""The generated blocks of the README: ``python tests/readme_blocks.py --write`` renews them.

A block stands between ``<!-- block:NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
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
             f"{s.params:,}", s.data, f"{s.target.metric} {s.target.value}" if s.target else s.published, s.source]
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
            for s in STEPS.values()
        ],
    )  # fmt: skip


def compression_block() -> str:
    rows = json.loads((ROOT / "benchmarks" / "results" / "compression.json").read_text())
    lines = []
    for model in rows:
        for row in model["recipes"]:
            if row["recipe"] == "base":
                continue
            lines.append(
                [f"`{model['model']}`", f"`{row['recipe']}`", f"{row['accuracy_points']:+.2f}",
                 f"{row['worst_group_points']:+.2f}", f"{row['bytes_ratio']:.2f}",
                 f"{row['bytes_gzip_ratio']:.2f}", row["seeds"]]
            )  # fmt: skip
    machine = rows[0]
    few = min(row["seeds"] for model in rows for row in model["recipes"]) < 3
    warning = "With so few seeds a difference under a point is no finding: `zoo audit` gives the intervals.\n"
    return (
        table(["model", "recipe", "accuracy, points", "worst group, points", "size", "zipped size",
               "seeds"], lines)
        + f"\nAgainst `base` of the same seed, on the same test rows; sizes as shares of its. "
        f"{machine['device']}, TensorFlow {machine['versions']['tensorflow']}, "
        f"{machine['created'][:10]}; `python benchmarks/compression.py` makes it again.\n"
        + (warning if few else "")
    )  # fmt: skip


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
            found = row["metrics"][name]
            target = row["target"]["value"] if name == row["target"]["metric"] else "-"
            values = ", ".join(f"{v:.4f}" for v in found["values"])
            lines.append(
                [f"`{row['model']}`", name, target, f"{found['mean']:.4f} ± {found['sd']:.4f}",
                 values, f"{found['baseline']:.4f}", f"{max(row['seconds']):.0f} s"]
            )  # fmt: skip
    machine = rows[0]
    return (
        table(["model", "test metric", "target", "mean ± sd", "five seeds", "linear baseline",
               "training"], lines)
        + f"\n{machine['device']}, TensorFlow {machine['versions']['tensorflow']}, "
        f"Keras {machine['versions']['keras']}, {machine['created'][:10]}.\n"
    )  # fmt: skip


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
        table(["rows", "CSV", "peak, converting", "peak, converted before", "ROC AUC",
               "linear baseline"], lines)
        + f"\nResident memory of the whole `zoo train {found['model']} --epochs {found['epochs']}`, "
        f"{found['columns']} columns: {first:.2f} and {cached:.2f} times for {found['factor']} times the "
        f"rows. {found['cpus']} cores, {found['memory_bytes'] / 2**30:.0f} GiB, TensorFlow "
        f"{found['versions']['tensorflow']}, {found['created'][:10]}; `python benchmarks/memory.py`.\n"
    )  # fmt: skip


def demo_block() -> str:
    return f"```\n{(GALLERY / 'printed.txt').read_text().rstrip()}\n```\n"


BLOCKS = {
    "models": models_block,
    "data": data_block,
    "recipes": recipes_block,
    "compression": compression_block,
    "help": help_block,
    "targets": targets_block,
    "training": training_block,
    "memory": memory_block,
    "demo": demo_block,
}


def renewed(text: str) -> str:
    """The README with every block generated anew."""
    return BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[4], text)


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = renewed(old)
    if "--write" in sys.argv:
        README.write_text(new, encoding="utf-8")
    elif new != old:
        sys.exit("README.md is not up to date: make docs")
