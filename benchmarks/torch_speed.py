"""Steps a second of ``zoo train``'s loop on a ResNet over a hand-written eager PyTorch loop.

    pip install -e '.[peers]'
    python benchmarks/torch_speed.py [MODEL ...] [--pairs 10] [--out benchmarks/results/torch_speed.json]

Both train the same net (the counts of trained variables are compared), batch size, optimizer and
pictures, without augmentation. Each side is a process of its own with all cores, since two
frameworks' thread pools in one process wait for each other; while one is timed the other waits at
a pipe. Pairs alternate (AB, BA, ...). PyTorch is measured in both memory formats, each against its
own turns of the zoo's loop. The ratio's 95 % interval is a t interval of its logarithm.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from train_speed import Sides, interval
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "torch_speed.json"
FORMATS = ("contiguous", "channels_last")


def resnet(config: dict[str, Any]) -> Any:
    """The net of ``zoo.models.resnet.build_resnet``'s small stem, in PyTorch."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut: Any = nn.Identity()
            if stride != 1 or before != width:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x: Any) -> Any:
            y = self.relu(self.norm1(self.first(x)))
            return self.relu(self.norm2(self.second(y)) + self.shortcut(x))

    widths, channels = config["widths"], config["shape"][2]
    layers: list[Any] = [
        nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
    ]
    before = widths[0]
    for stage, (count, width) in enumerate(zip(config["blocks"], widths, strict=True)):
        for number in range(count):
            layers.append(Block(before, width, 2 if stage and number == 0 else 1))
            before = width
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, config["outputs"])]
    return nn.Sequential(*layers, *pool)


def peer(config: dict[str, Any], options: Any, x: np.ndarray, y: np.ndarray, memory: str) -> Any:
    """A plain PyTorch loop -> (function that trains so many steps -> seconds, variables)."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    model = resnet(config)
    pictures = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    if memory == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(y.astype(np.int64))
    optimizer = torch.optim.AdamW(
        model.parameters(), options.learning_rate, weight_decay=options.weight_decay
    )
    loss_of = torch.nn.CrossEntropyLoss()
    size, order, at = options.batch_size, torch.randperm(len(labels)), 0

    def run(steps: int) -> float:
        nonlocal order, at
        began = time.perf_counter()
        for _ in range(steps):
            if at + size > len(labels):
                order, at = torch.randperm(len(labels)), 0
            rows = order[at : at + size]
            at += size
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(pictures[rows]), labels[rows])
            loss.backward()
            optimizer.step()
        loss.item()
        return time.perf_counter() - began

    run(2)
    return run, sum(p.numel() for p in model.parameters())


def side(pipe: Any, name: str, which: str) -> None:
    """A process: answers step counts with seconds; first says what it runs."""
    sides = Sides(name, augment=False, execution="auto")
    run: Callable[[int], float]
    if which == "zoo":
        options = sides.options
        run = sides.ours(options.epochs * len(sides.samples) // options.batch_size)
        variables = sum(int(np.prod(v.shape)) for v in sides.session.build().trainable_variables)
        pipe.send({"execution": sides.chosen, "variables": variables})
    else:
        import torch

        x, y = np.asarray(sides.samples.x), np.asarray(sides.samples.y)
        run, variables = peer(dict(sides.session.config), sides.options, x, y, which)
        pipe.send({"variables": variables, "version": torch.__version__})
    while (steps := pipe.recv()) is not None:
        pipe.send(run(steps))


class Process:
    """One side in a process of its own."""

    def __init__(self, name: str, which: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=side, args=(theirs, name, which), daemon=True)
        self.process.start()
        theirs.close()
        self.about = self.pipe.recv()

    def seconds(self, steps: int) -> float:
        """Seconds of so many steps."""
        self.pipe.send(steps)
        return float(self.pipe.recv())

    def stop(self) -> None:
        """End it."""
        self.pipe.send(None)
        self.process.join()


def measure(name: str, memory: str, pairs: int, seconds: float) -> dict[str, Any]:
    """One row: alternating pairs of about ``seconds`` a side."""
    from zoo.registry import models

    both = {"zoo": Process(name, "zoo"), "torch": Process(name, memory)}
    ours, theirs = (both[key].about["variables"] for key in ("zoo", "torch"))
    if ours != theirs:
        raise SystemExit(f"{name}: {ours:,} trained variables here, {theirs:,} in PyTorch")
    steps = max(8, int(seconds / (both["torch"].seconds(16) / 16)))
    rates: dict[str, list[float]] = {key: [] for key in both}
    for turn in range(pairs):
        for key in ("zoo", "torch") if turn % 2 == 0 else ("torch", "zoo"):
            rates[key].append(steps / both[key].seconds(steps))
    about = {key: process.about for key, process in both.items()}
    for process in both.values():
        process.stop()
    ratio, low, high = interval([a / b for a, b in zip(rates["zoo"], rates["torch"], strict=True)])
    return {
        "model": name,
        "data": models().get(name).data,
        "peer": f"eager PyTorch, {memory.replace('_', ' ')}",
        "variables": ours,
        "execution": about["zoo"]["execution"],
        "pairs": pairs,
        "steps_each": steps,
        "steps_per_second": {key: statistics.median(found) for key, found in rates.items()},
        "ratio": ratio,
        "ci_low": low,
        "ci_high": high,
        **measured(torch=about["torch"]["version"]),
    }


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--pairs", default=10, show_default=True, type=click.IntRange(3))
@click.option("--seconds", default=4.0, show_default=True, help="About so long a side of a pair.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], pairs: int, seconds: float, out: Path) -> None:
    """Measure models and write a row each and memory format; rows of the others are kept."""
    old = json.loads(out.read_text()) if out.exists() else []
    rows = {(row["model"], row["peer"]): row for row in old}
    for name in names or ("resnet20",):
        for memory in FORMATS:
            row = measure(name, memory, pairs, seconds)
            rows[name, row["peer"]] = row
            click.echo(
                f"{name} {row['execution']['mode']}: {row['ratio']:.2f} "
                f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}] of {row['peer']}"
            )
            write_atomic(out, json.dumps([rows[k] for k in sorted(rows)], indent=1) + "\n")


if __name__ == "__main__":
    main()
