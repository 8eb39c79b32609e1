"""Where the time of a training step goes, operation by operation, here and in eager PyTorch.

    pip install -e '.[peers]'
    python benchmarks/step_profile.py [MODEL ...] [--steps 10]

Writes ``results/step_profile.json``: milliseconds of work in a step, summed over threads, of each
kind of operation that takes 1 % or more. ``fused`` false leaves batch normalisation to Keras' own
operations (:mod:`zoo.train.fused`), which is what ``keras.Model.fit`` runs. Each row is measured in a
process of its own.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from torch_speed import peer
from train_speed import Sides
from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "step_profile.json"
#: Kinds that take less than this share of the work are summed up.
SHARE = 0.01


def ours(name: str, steps: int, fused: bool) -> dict[str, float]:
    """Milliseconds a step by operation, in the loop of ``zoo train``, compiled as a graph."""
    import zoo.train.execution as execution
    from zoo.backend import tf

    if not fused:
        execution.fused_kernels = contextlib.nullcontext  # type: ignore[assignment]
    sides = Sides(name, augment=False, execution="graph:16")
    run = sides.ours(10**6)
    run(steps)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        run(steps)
        tf.profiler.experimental.stop()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return {kind: ms / steps for kind, ms in _kernels(path).items()}


def _kernels(path: Path) -> Counter[str]:
    """Milliseconds of each kind of kernel in a trace of TensorFlow's profiler."""
    from tensorflow.python.framework import op_def_registry
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    found: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                about = plane.event_metadata[event.metadata_id]
                kind = about.name.rpartition(":")[2]  # of "name of the node:Kind"
                if op_def_registry.get(kind) is not None and "Dataset" not in kind:
                    found[kind] += event.duration_ps / 1e9
    return found


def theirs(name: str, steps: int, memory: str) -> dict[str, float]:
    """The same of the PyTorch loop."""
    import torch

    sides = Sides(name, augment=False, execution="auto")
    x, y = np.asarray(sides.samples.x), np.asarray(sides.samples.y)
    run, _ = peer(dict(sides.session.config), sides.options, x, y, memory)
    run(steps)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as traced:
        run(steps)
    return {row.key: row.self_cpu_time_total / 1e3 / steps for row in traced.key_averages()}


def told(name: str, side: str, steps: int) -> dict[str, Any]:
    """One row of the results."""
    if side == "pytorch":
        found = theirs(name, steps, "contiguous")
    else:
        found = ours(name, steps, fused=side == "zoo")
    total = sum(found.values())
    large = {kind: ms for kind, ms in found.items() if ms >= SHARE * total}
    return {
        "model": name,
        "side": side,
        "steps": steps,
        "total_ms": round(total, 2),
        "operations": {k: round(large[k], 2) for k in sorted(large, key=large.get, reverse=True)}  # type: ignore[arg-type]
        | {"others": round(total - sum(large.values()), 2)},
        **measured(),
    }


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--steps", default=10, show_default=True, type=click.IntRange(2))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], steps: int, out: Path) -> None:
    """Profile models and write a row a side."""
    rows = []
    for name in names or ("resnet20",):
        for side in ("zoo", "keras", "pytorch"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(told, (name, side, steps))
            rows.append(row)
            click.echo(f"{name} {side}: {row['total_ms']:.1f} ms of work a step")
            for kind, ms in row["operations"].items():
                click.echo(f"  {kind:40s} {ms:8.2f}")
    write_atomic(out, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
