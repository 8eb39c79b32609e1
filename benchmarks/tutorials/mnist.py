"""TF-MOT's own MNIST tutorials, with its steps done by ``zoo.compress`` on Keras 3.

    python benchmarks/tutorials/mnist.py [pruning] [clustering] [qat] [pcqat] [--seeds 5]

The model, batch sizes, schedules and settings are the tutorials'; the data is the shipped 5,000 digits
instead of 60,000, so there are more epochs of fewer steps each. A thousand test digits and one seed say little
about a point of accuracy, so there are several. Prints each tutorial's table, means with their spread, and
whether what it shows holds here; the results go to ``benchmarks/results/tutorials.json``.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent.parent / "results" / "tutorials.json"
SITE = "https://www.tensorflow.org/model_optimization/guide"
PICTURES = 54_000  # of the tutorials' epochs; the others are for validation
Row = tuple[str, float]
#: What a tutorial shows, the figure here, ">=" or "<=", and the limit: the mean over seeds must keep it.
Shown = tuple[str, float, str, float]


def digits() -> tuple[np.ndarray, ...]:
    """Train and test pictures float32 (n, 28, 28) in 0..1 with labels int64 (n,)."""
    from zoo.data.core import open_data
    from zoo.data.table import Request

    data = open_data(Request(data="mnist_5k"))
    parts = []
    for name in ("train", "test"):
        rows = data.parts[name]
        parts += [np.asarray(data.take(rows), "float32").reshape(-1, 28, 28) / 255.0, data.y[rows]]
    return tuple(parts)


def fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: float, batch: int, rate: float = 1e-3,
        callbacks: tuple = ()) -> None:  # fmt: skip
    """Train as long as the tutorials' ``epochs`` are: about as many steps, on fewer pictures."""
    from zoo.backend import keras

    model.compile(keras.optimizers.Adam(rate),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))  # fmt: skip
    model.fit(x, y, batch_size=batch, epochs=round(epochs * PICTURES / len(x)), verbose=0,
              callbacks=list(callbacks))  # fmt: skip


def baseline(seed: int, x: np.ndarray, y: np.ndarray) -> Any:
    """The tutorials' model, trained: 12 filters, a pooling and a Dense layer."""
    from zoo.backend import seed_everything

    seed_everything(seed)
    model = network()
    if seed not in _TRAINED:
        fit(model, x, y, 4, 32)
        _TRAINED[seed] = model.get_weights()
    model.set_weights(_TRAINED[seed])
    seed_everything(seed)  # a tutorial gives the same by itself as after others
    return model


_TRAINED: dict[int, list[np.ndarray]] = {}  # all four begin with the same one


def network() -> Any:
    from zoo.backend import keras

    layers = keras.layers
    return keras.Sequential([
        keras.Input((28, 28)), layers.Reshape((28, 28, 1)), layers.Conv2D(12, 3, activation="relu"),
        layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip


def keras_accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float((model.predict(x, verbose=0).argmax(1) == y).mean())


def litert_accuracy(content: bytes, x: np.ndarray, y: np.ndarray) -> float:
    from zoo.predict import Artifact

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return float((Artifact(path)(x).argmax(1) == y).mean())


def zipped(content: bytes) -> int:
    return len(gzip.compress(content, 9, mtime=0))


def pruning(seed: int) -> tuple[list[Row], list[Shown]]:
    """50 % to 80 % zeros over all kernels, polynomial; then dynamic-range quantisation."""
    from zoo.compress import prune, to_litert

    x, y, tx, ty = digits()
    model = baseline(seed, x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    steps = -(-len(x) // 128) * round(2 * PICTURES / len(x))
    with prune(model, 0.8, steps=steps, growth=1.0, initial=0.5, layers="all") as handle:
        fit(model, x, y, 2, 128, callbacks=(handle.callback(),))
    pruned, sparse = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    both = to_litert(model, "dynamic")
    kept = litert_accuracy(both, tx, ty)
    small = zipped(both)
    return [
        ("baseline test accuracy", first), ("pruned test accuracy", pruned),
        ("zipped baseline LiteRT, bytes", dense), ("zipped pruned LiteRT, bytes", sparse),
        ("zipped pruned and quantised LiteRT, bytes", small),
        ("pruned and quantised LiteRT test accuracy", kept),
    ], [
        ("3x smaller from pruning", dense / sparse, ">=", 3),
        ("10x smaller from pruning and quantisation", dense / small, ">=", 10),
        ("little loss of accuracy from pruning (points)", 100 * (first - pruned), "<=", 1),
        ("accuracy persists in LiteRT (points off)", 100 * abs(pruned - kept), "<=", 0.5),
    ]  # fmt: skip


def clustering(seed: int) -> tuple[list[Row], list[Shown]]:
    """16 linear centroids a kernel, fine-tuned at 1e-5; then dynamic-range quantisation."""
    from zoo.compress import cluster, to_litert

    x, y, tx, ty = digits()
    model = baseline(seed, x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    with cluster(model, 16, initial="linear", layers="all"):
        fit(model, x, y, 1, 500, 1e-5)
    clustered, shared = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    both = to_litert(model, "dynamic")
    kept, small = litert_accuracy(both, tx, ty), zipped(both)
    return [
        ("baseline test accuracy", first), ("clustered test accuracy", clustered),
        ("zipped baseline LiteRT, bytes", dense), ("zipped clustered LiteRT, bytes", shared),
        ("zipped clustered and quantised LiteRT, bytes", small),
        ("clustered and quantised LiteRT test accuracy", kept),
    ], [
        ("6x smaller from clustering", dense / shared, ">=", 6),
        ("8x smaller from clustering and quantisation", dense / small, ">=", 8),
        ("little loss of accuracy from clustering (points)", 100 * (first - clustered), "<=", 1),
        ("accuracy persists in LiteRT (points off)", 100 * abs(clustered - kept), "<=", 0.5),
    ]  # fmt: skip


def qat(seed: int) -> tuple[list[Row], list[Shown]]:
    """One more epoch on 1,000 pictures with rounded weights and activations; then int8."""
    from zoo.compress import quantize_aware, to_litert

    x, y, tx, ty = digits()
    model = baseline(seed, x, y)
    first, content = keras_accuracy(model, tx, ty), to_litert(model)
    with quantize_aware(model, x[:256]):
        fit(model, x[:1000], y[:1000], 1000 / PICTURES, 500)  # one epoch of these
        aware = keras_accuracy(model, tx, ty)
    made = to_litert(model, "int8", x[:256])
    kept = litert_accuracy(made, tx, ty)
    return [
        ("baseline test accuracy", first), ("quantisation-aware test accuracy", aware),
        ("int8 LiteRT test accuracy", kept), ("float LiteRT, bytes", len(content)),
        ("int8 LiteRT, bytes", len(made)),
    ], [
        ("4x smaller (at least 3.5)", len(content) / len(made), ">=", 3.5),
        ("minimal to no loss of accuracy (points)", 100 * (first - aware), "<=", 0.5),
        ("accuracy persists in LiteRT (points off)", 100 * abs(aware - kept), "<=", 0.5),
    ]  # fmt: skip


def pcqat(seed: int) -> tuple[list[Row], list[Shown]]:
    """Prune to 50 %, cluster to 8 values keeping the zeros, then rounded training keeping both."""
    from zoo.compress import cluster, keep_zeros, kernels, prune, quantize_aware, to_litert
    from zoo.compress.clustering import keep_clusters
    from zoo.compress.quantizing import snap

    x, y, tx, ty = digits()
    model = baseline(seed, x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))

    def facts() -> tuple[float, int]:
        """Zeros over all kernels, and the most values of an output channel's kernel."""
        values = [np.asarray(k.matrix(k.variable.value)) for k in kernels(model, "all")]
        most = max(len(np.unique(column)) for matrix in values for column in matrix.T)
        return float(np.mean(np.concatenate([m.ravel() for m in values]) == 0)), most

    with prune(model, 0.5, steps=1, schedule="constant", layers="all") as handle:
        fit(model, x, y, 3, 32, 1e-5, (handle.callback(),))
    pruned, (zeros, _) = keras_accuracy(model, tx, ty), facts()
    with cluster(model, 8, layers="all"):
        fit(model, x, y, 3, 32)
    clustered, (zeros_then, most) = keras_accuracy(model, tx, ty), facts()
    weights = model.get_weights()
    with quantize_aware(model, x[:256]):
        fit(model, x, y, 1, 128)
    zeros_alone, most_alone = facts()
    model.set_weights(weights)
    with keep_zeros(model), keep_clusters(model), quantize_aware(model, x[:256]):
        fit(model, x, y, 1, 128)
    snap(model)
    aware, (zeros_last, most_last) = keras_accuracy(model, tx, ty), facts()
    made = to_litert(model, "int8", x[:256])
    kept, small = litert_accuracy(made, tx, ty), zipped(made)
    return [
        ("baseline test accuracy", first), ("pruned test accuracy", pruned), ("pruned: zeros", zeros),
        ("clustered test accuracy", clustered), ("clustered: zeros", zeros_then),
        ("clustered: values a kernel at most", most), ("PCQAT test accuracy", aware),
        ("QAT alone: zeros", zeros_alone), ("QAT alone: values a channel at most", most_alone),
        ("PCQAT: zeros", zeros_last), ("PCQAT: values a channel at most", most_last),
        ("PCQAT LiteRT test accuracy", kept), ("zipped baseline LiteRT, bytes", dense),
        ("zipped PCQAT LiteRT, bytes", small),
    ], [
        ("QAT alone loses the clusters", most_alone, ">=", 9),
        ("sparsity is preserved by clustering and QAT", zeros_last, ">=", 0.5),
        ("at most 8 values are left", max(most, most_last), "<=", 8),
        ("accuracy persists in LiteRT (points off)", 100 * abs(aware - kept), "<=", 0.5),
        ("little loss of accuracy in all (points)", 100 * (first - aware), "<=", 1.5),
    ]  # fmt: skip


TUTORIALS: dict[str, tuple[Callable[[int], tuple[list[Row], list[Shown]]], str]] = {
    "pruning": (pruning, f"{SITE}/pruning/pruning_with_keras"),
    "clustering": (clustering, f"{SITE}/clustering/clustering_example"),
    "qat": (qat, f"{SITE}/quantization/training_example"),
    "pcqat": (pcqat, f"{SITE}/combine/pcqat_example"),
}


def over_seeds(name: str, seeds: int) -> dict[str, Any]:
    """A tutorial's figures and what it shows, ``[mean, deviation over the seeds]`` each."""
    run, source = TUTORIALS[name]
    tables, shown = zip(*(run(seed) for seed in range(seeds)), strict=True)

    def spread(values: Sequence[float]) -> list[float]:
        return [float(np.mean(values)), float(np.std(values, ddof=1)) if seeds > 1 else 0.0]

    shows = []
    for each in zip(*shown, strict=True):
        what, _, sign, limit = each[0]
        number = spread([values[1] for values in each])
        holds = number[0] >= limit if sign == ">=" else number[0] <= limit
        shows.append({"what": what, "number": number, "limit": f"{sign} {limit:g}", "holds": holds})
    table = {rows[0][0]: spread([value for _, value in rows]) for rows in zip(*tables, strict=True)}
    return {"tutorial": name, "source": source, "seeds": seeds, "table": table, "shows": shows}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*TUTORIALS]))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], seeds: int, out: Path) -> None:
    """Do the tutorials, all by default, and write what they showed."""
    known = {row["tutorial"]: row for row in json.loads(out.read_text())} if out.exists() else {}
    for name in names or TUTORIALS:
        found = over_seeds(name, seeds)
        click.echo(f"\n{name}: {found['source']}")
        for what, (value, spread) in found["table"].items():
            digits = 4 if value < 2 else 0
            click.echo(f"  {what:46} {value:,.{digits}f} +- {spread:,.{digits}f}")
        for row in found["shows"]:
            value, spread = row["number"]
            click.echo(f"  {'holds' if row['holds'] else 'does not hold':14} {row['what']}: "
                       f"{value:.3g} +- {spread:.2g} (limit {row['limit']})")  # fmt: skip
        known[name] = {**found, **measured()}
        ordered = [known[each] for each in TUTORIALS if each in known]
        write_atomic(out, json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
