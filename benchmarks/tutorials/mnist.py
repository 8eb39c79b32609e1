"""TF-MOT's own MNIST tutorials, with its steps done by ``zoo.compress`` on Keras 3.

    python benchmarks/tutorials/mnist.py [pruning] [clustering] [qat] [pcqat]

The model, batch sizes, schedules and settings are the tutorials'; the data is the shipped 5,000 digits
instead of 60,000, so there are more epochs of fewer steps each. Prints each tutorial's table and whether what
it shows holds here; the results go to ``benchmarks/results/tutorials.json``.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from zoo.environment import measured
from zoo.run import write_atomic

OUT = Path(__file__).parent.parent / "results" / "tutorials.json"
SITE = "https://www.tensorflow.org/model_optimization/guide"
#: 4 and 1 to 3 in the tutorials, on 15 times as many pictures: about as many steps.
EPOCHS, MORE = 60, 30
Row = tuple[str, float]
#: What a tutorial shows, the figure here, and whether that is so here.
Shown = tuple[str, float, bool]


def digits() -> tuple[np.ndarray, ...]:
    """Train and test pictures float32 (n, 28, 28) in 0..1 with labels int64 (n,)."""
    from zoo.data.core import Request, open_data

    data = open_data(Request(data="mnist_5k"))
    parts = []
    for name in ("train", "test"):
        rows = data.parts[name]
        parts += [np.asarray(data.take(rows), "float32").reshape(-1, 28, 28) / 255.0, data.y[rows]]
    return tuple(parts)


def fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, batch: int, rate: float = 1e-3,
        callbacks: tuple = ()) -> None:  # fmt: skip
    from zoo.backend import keras

    model.compile(keras.optimizers.Adam(rate),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))  # fmt: skip
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=list(callbacks))


def baseline(x: np.ndarray, y: np.ndarray) -> Any:
    """The tutorials' model, trained: 12 filters, a pooling and a Dense layer."""
    model = network()
    if not _TRAINED:
        fit(model, x, y, EPOCHS, 32)
        _TRAINED.extend(model.get_weights())
    model.set_weights(_TRAINED)
    return model


_TRAINED: list[np.ndarray] = []  # all four begin with the same one


def network() -> Any:
    from zoo.backend import keras, seed_everything

    seed_everything(0)
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


def pruning() -> tuple[list[Row], list[Shown]]:
    """50 % to 80 % zeros over all kernels, polynomial; then dynamic-range quantisation."""
    from zoo.compress import prune, to_litert

    x, y, tx, ty = digits()
    model = baseline(x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    steps = -(-len(x) // 128) * MORE
    with prune(model, 0.8, steps=steps, growth=1.0, initial=0.5, layers="all") as handle:
        fit(model, x, y, MORE, 128, callbacks=(handle.callback(),))
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
        ("3x smaller from pruning", dense / sparse, dense / sparse >= 3),
        ("10x smaller from pruning and quantisation", dense / small, dense / small >= 10),
        ("little loss of accuracy from pruning (points)", 100 * (first - pruned), first - pruned <= 0.01),
        ("accuracy persists in LiteRT (points)", 100 * (pruned - kept), abs(pruned - kept) <= 0.005),
    ]  # fmt: skip


def clustering() -> tuple[list[Row], list[Shown]]:
    """16 linear centroids a kernel, fine-tuned at 1e-5; then dynamic-range quantisation."""
    from zoo.compress import cluster, to_litert

    x, y, tx, ty = digits()
    model = baseline(x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    with cluster(model, 16, initial="linear", layers="all"):
        fit(model, x, y, MORE, 500, 1e-5)
    clustered, shared = keras_accuracy(model, tx, ty), zipped(to_litert(model))
    both = to_litert(model, "dynamic")
    kept, small = litert_accuracy(both, tx, ty), zipped(both)
    return [
        ("baseline test accuracy", first), ("clustered test accuracy", clustered),
        ("zipped baseline LiteRT, bytes", dense), ("zipped clustered LiteRT, bytes", shared),
        ("zipped clustered and quantised LiteRT, bytes", small),
        ("clustered and quantised LiteRT test accuracy", kept),
    ], [
        ("6x smaller from clustering", dense / shared, dense / shared >= 6),
        ("8x smaller from clustering and quantisation", dense / small, dense / small >= 8),
        ("little loss of accuracy from clustering (points)", 100 * (first - clustered),
         first - clustered <= 0.01),
        ("accuracy persists in LiteRT (points)", 100 * (clustered - kept),
         abs(clustered - kept) <= 0.005),
    ]  # fmt: skip


def qat() -> tuple[list[Row], list[Shown]]:
    """One more epoch on 1,000 pictures with rounded weights and activations; then int8."""
    from zoo.compress import quantize_aware, to_litert

    x, y, tx, ty = digits()
    model = baseline(x, y)
    first, content = keras_accuracy(model, tx, ty), to_litert(model)
    with quantize_aware(model, x[:256]):
        fit(model, x[:1000], y[:1000], 1, 500)
        aware = keras_accuracy(model, tx, ty)
    made = to_litert(model, "int8", x[:256])
    kept = litert_accuracy(made, tx, ty)
    return [
        ("baseline test accuracy", first), ("quantisation-aware test accuracy", aware),
        ("int8 LiteRT test accuracy", kept), ("float LiteRT, bytes", len(content)),
        ("int8 LiteRT, bytes", len(made)),
    ], [
        ("4x smaller (at least 3.5)", len(content) / len(made), len(content) / len(made) >= 3.5),
        ("minimal to no loss of accuracy (points)", 100 * (first - aware), first - aware <= 0.005),
        ("accuracy persists in LiteRT (points)", 100 * (aware - kept), abs(aware - kept) <= 0.005),
    ]  # fmt: skip


def pcqat() -> tuple[list[Row], list[Shown]]:
    """Prune to 50 %, cluster to 8 values keeping the zeros, then rounded training keeping both."""
    from zoo.compress import cluster, keep_zeros, kernels, prune, quantize_aware, to_litert
    from zoo.compress.clustering import keep_clusters
    from zoo.compress.quantizing import snap

    x, y, tx, ty = digits()
    model = baseline(x, y)
    first, dense = keras_accuracy(model, tx, ty), zipped(to_litert(model))

    def facts() -> tuple[float, int]:
        """Zeros over all kernels, and the most values of an output channel's kernel."""
        values = [np.asarray(k.matrix(k.variable.value)) for k in kernels(model, "all")]
        most = max(len(np.unique(column)) for matrix in values for column in matrix.T)
        return float(np.mean(np.concatenate([m.ravel() for m in values]) == 0)), most

    with prune(model, 0.5, steps=1, schedule="constant", layers="all") as handle:
        fit(model, x, y, MORE, 128, 1e-5, (handle.callback(),))
    pruned, (zeros, _) = keras_accuracy(model, tx, ty), facts()
    with cluster(model, 8, layers="all"):
        fit(model, x, y, MORE, 128, 1e-5)
    clustered, (zeros_then, most) = keras_accuracy(model, tx, ty), facts()
    weights = model.get_weights()
    with quantize_aware(model, x[:256]):
        fit(model, x, y, MORE, 128)
    zeros_alone, most_alone = facts()
    model.set_weights(weights)
    with keep_zeros(model), keep_clusters(model), quantize_aware(model, x[:256]):
        fit(model, x, y, MORE, 128)
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
        ("QAT alone loses the clusters", most_alone, most_alone > 8),
        ("sparsity is preserved by clustering and QAT", zeros_last, zeros_last >= zeros - 1e-6),
        ("at most 8 values are left", most_last, max(most, most_last) <= 8),
        ("accuracy persists in LiteRT (points)", 100 * (aware - kept), abs(aware - kept) <= 0.005),
        ("little loss of accuracy in all (points)", 100 * (first - aware), first - aware <= 0.015),
    ]  # fmt: skip


TUTORIALS: dict[str, tuple[Callable[[], tuple[list[Row], list[Shown]]], str]] = {
    "pruning": (pruning, f"{SITE}/pruning/pruning_with_keras"),
    "clustering": (clustering, f"{SITE}/clustering/clustering_example"),
    "qat": (qat, f"{SITE}/quantization/training_example"),
    "pcqat": (pcqat, f"{SITE}/combine/pcqat_example"),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*TUTORIALS]))
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(names: tuple[str, ...], out: Path) -> None:
    """Do the tutorials, all by default, and write what they showed."""
    known = {row["tutorial"]: row for row in json.loads(out.read_text())} if out.exists() else {}
    for name in names or TUTORIALS:
        run, source = TUTORIALS[name]
        table, shown = run()
        click.echo(f"\n{name}: {source}")
        for what, value in table:
            click.echo(f"  {what:46} {value:,.4f}" if value < 2 else f"  {what:46} {value:,.0f}")
        for what, number, holds in shown:
            click.echo(f"  {'holds' if holds else 'does not hold':14} {what}: {number:.3g}")
        known[name] = {
            "tutorial": name, "source": source, "table": dict(table),
            "shows": [{"what": w, "number": n, "holds": h} for w, n, h in shown],
            **measured(),
        }  # fmt: skip
        ordered = [known[each] for each in TUTORIALS if each in known]
        write_atomic(out, json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
