"""Ours against TF-MOT's own quantisation-aware training, by way of tf_keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tf_keras_bridge import to_tf_keras

#: What tf_keras and TF-MOT say of newer NumPy and TensorFlow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TRAIN, EPOCHS = 2500, 3


@pytest.fixture(scope="module")
def digits():
    path = Path(__file__).parent.parent / "zoo" / "data" / "files" / "mnist_5k.npz"
    with np.load(path) as stored:
        x = stored["images"].reshape(-1, 28, 28, 1).astype("float32") / 255
        y = stored["labels"].astype("int64")
    order = np.random.default_rng(0).permutation(len(x))
    return x[order][:, ::2, ::2], y[order]


def small_cnn():
    """Conv - normalisation - ReLU, pooling, a shortcut: what TF-MOT's default scheme knows."""
    from zoo.backend import keras, seed_everything

    seed_everything(1)
    la = keras.layers
    image = keras.Input((14, 14, 1), name="image")
    x = la.Conv2D(12, 3, padding="same", name="stem")(image)
    x = la.ReLU(name="relu_1")(la.BatchNormalization(momentum=0.9, name="norm_1")(x))
    x = la.MaxPooling2D(name="pool")(x)
    y = la.Conv2D(12, 3, padding="same", name="inner")(x)
    y = la.ReLU(name="relu_2")(la.BatchNormalization(momentum=0.9, name="norm_2")(y))
    x = la.Add(name="add")([x, y])
    return keras.Model(image, la.Dense(10, name="logits")(la.Flatten(name="flat")(x)))


def train(library, model, x, y, epochs, rate):
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(rate), loss)
    model.fit(x[:TRAIN], y[:TRAIN], epochs=epochs, batch_size=32, shuffle=False, verbose=0)


def accuracy(said, y) -> float:
    return float((np.asarray(said).argmax(axis=1) == y[TRAIN:]).mean())


def test_the_bridge_gives_the_same_outputs(digits):
    x, _ = digits
    model = small_cnn()
    assert np.abs(to_tf_keras(model)(x[:32]).numpy() - model(x[:32]).numpy()).max() < 1e-5


@pytest.mark.slow
def test_accuracy_agrees_with_tf_mots_own(digits, tmp_path):
    """Same float model, same rows in the same order; simulated and exported, within half a point."""
    import tf_keras

    from zoo.backend import keras
    from zoo.compress import quantize_aware, to_litert
    from zoo.compress.mot import mot
    from zoo.predict import Artifact

    x, y = digits
    model = small_cnn()
    train(keras, model, x, y, 4, 2e-3)
    before = accuracy(model.predict(x[TRAIN:], verbose=0), y)

    theirs = mot("quantization.keras.quantize").quantize_model(to_tf_keras(model))
    train(tf_keras, theirs, x, y, EPOCHS, 5e-4)
    reference = accuracy(theirs.predict(x[TRAIN:], verbose=0), y)

    handle = quantize_aware(model, x[:256])
    train(keras, model, x, y, EPOCHS, 5e-4)
    simulated = accuracy(model.predict(x[TRAIN:], verbose=0), y)
    handle.release()
    path = tmp_path / "model.tflite"
    path.write_bytes(to_litert(model, "int8", x[:256]))
    exported = accuracy(Artifact(path)(x[TRAIN:]), y)
    print(f"float {before:.4f} TF-MOT {reference:.4f} ours {simulated:.4f} int8 {exported:.4f}")

    assert abs(simulated - reference) <= 0.005
    assert abs(exported - simulated) <= 0.005
    assert exported >= before - 0.005
