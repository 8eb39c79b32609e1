"""The training loop, checkpoints, options and the session around them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.progress import QUIET
from zoo.tasks import TASKS
from zoo.train.options import TrainOptions, apply_settings, coerce


def problem(n: int = 300):
    from zoo.train.loop import Samples

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)).astype("float32")
    y = (x[:, :1] + 0.5 * x[:, 1:2] > 0).astype("float32")
    return Samples(x, y)


def net(seed: int = 0):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    seed_everything(seed)
    return build_mlp((6,), 1, (16,), 0.3)


def train(model, options, folder=None, resume=False, callbacks=(), samples=None):
    from zoo.train.loop import fit

    samples = samples or problem()

    def validate():
        logits = model(samples.x, training=False).numpy()
        loss = float(np.mean(np.logaddexp(0, -(2 * samples.y - 1) * logits)))
        return {"val_loss": loss}

    rows = []
    fitted = fit(
        model, TASKS["binary"], options, samples, validate, seed=5, progress=QUIET,
        checkpoints=folder, on_epoch=rows.append, resume=resume, callbacks=callbacks,
    )  # fmt: skip
    return fitted, rows


def test_learns_and_reports():
    model = net()
    fitted, rows = train(model, TrainOptions(epochs=6, batch_size=32, learning_rate=0.01))
    assert fitted.epochs == 6
    assert fitted.steps == 6 * math.ceil(300 / 32)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["val_loss"] < 0.7 * rows[0]["val_loss"]
    assert rows[-1]["learning_rate"] < 1e-6  # the cosine ends at zero
    assert fitted.steps_per_second > 0


def test_same_seed_same_weights():
    options = TrainOptions(epochs=2, batch_size=32)
    weights = []
    for _ in range(2):
        model = net()
        train(model, options)
        weights.append(model.get_weights())
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(*weights, strict=True))


def test_resume_continues_as_if_nothing_had_happened(tmp_path):
    """Dropout and shuffling on; stopped after 2 of 5 epochs and taken up by a fresh model."""
    from zoo.backend import keras

    options = TrainOptions(epochs=5, batch_size=32, learning_rate=0.01, keep="last")
    whole = net()
    train(whole, options)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    first = net()
    fitted, _ = train(first, options, tmp_path, callbacks=[Stop()])
    assert fitted.epochs == 2
    second = net(seed=99)
    fitted, rows = train(second, options, tmp_path, resume=True)
    assert [row["epoch"] for row in rows] == [3, 4, 5]
    for a, b in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, capsys):
    from zoo.progress import Progress
    from zoo.train import checkpoint

    options = TrainOptions(epochs=3, batch_size=64)
    model = net()
    train(model, options, tmp_path)
    newest = max(tmp_path.glob("step-*"))
    content = bytearray((newest / "state.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (newest / "state.npz").write_bytes(content)
    found = checkpoint.newest(tmp_path)
    assert found.arrays
    assert found.meta["step"] == 2 * math.ceil(300 / 64)
    assert newest.name in found.passed[0]
    Progress().say(found.passed[0])
    assert "damaged" in capsys.readouterr().err
    assert len(list(tmp_path.glob("step-*"))) == checkpoint.KEEP


def test_keep_best_restores_the_best_epoch():
    model = net()
    losses = iter([0.9, 0.2, 0.5])
    kept = []

    from zoo.train.loop import fit

    def validate():
        kept.append([np.asarray(w) for w in model.weights])
        return {"val_loss": next(losses)}

    fitted = fit(
        model, TASKS["binary"], TrainOptions(epochs=3, batch_size=64), problem(), validate,
        seed=0, progress=QUIET,
    )  # fmt: skip
    assert fitted.best == {"val_loss": 0.2, "epoch": 2}
    for a, b in zip(model.get_weights(), kept[1], strict=True):
        assert np.array_equal(a, b)


def test_patience_stops_early():
    model = net()
    from zoo.train.loop import fit

    losses = iter([0.5, 0.6, 0.7, 0.8, 0.9])
    fitted = fit(
        model, TASKS["binary"], TrainOptions(epochs=5, batch_size=64, patience=2), problem(),
        lambda: {"val_loss": next(losses)}, seed=0, progress=QUIET,
    )  # fmt: skip
    assert fitted.epochs == 3


def test_divergence_is_an_error_that_says_what_to_do():
    with pytest.raises(ZooError, match="diverged") as error:
        train(net(), TrainOptions(epochs=3, learning_rate=99.0, optimizer="sgd"), samples=_wild())
    assert error.value.exit_code == 1
    assert "learning_rate" in str(error.value)


def _wild():
    samples = problem()
    samples.x = samples.x * np.float32(1e18)
    return samples


def test_every_sample_is_seen_once_an_epoch_in_another_order():
    from zoo.train.feed import Feed, Samples

    samples = Samples(np.arange(100, dtype="float32")[:, None], np.arange(100, dtype="float32"))
    feed = Feed(samples, TrainOptions(batch_size=32), 1)

    def order(epoch):
        return np.concatenate([y.numpy() for _, y in feed.epoch(epoch)])

    assert sorted(order(0)) == list(range(100))
    assert list(order(0)) == list(order(0))
    assert list(order(0)) != list(order(1))


def test_augmentation_moves_pictures_and_repeats():
    from zoo.backend import tf
    from zoo.train.augment import AUGMENTATIONS

    images = np.zeros((8, 12, 12, 1), dtype="float32")
    images[:, 4:8, 3:7] = 1
    for row in AUGMENTATIONS.values():

        def pictures(*seed, row=row):
            found = row.change(tf.constant(images), tf.constant(seed, tf.int64))
            return (found[0] if row.mixes else found).numpy()

        one = pictures(1, 2)
        assert one.shape == images.shape
        assert np.array_equal(one, pictures(1, 2))
        if not row.mixes:  # equal pictures mix to the same
            assert not np.array_equal(one, pictures(1, 3)), row.name
        if row.name != "randaugment":
            assert 0.5 < one.sum() / images.sum() < 1.6


@pytest.mark.parametrize(
    ("name", "value", "like", "expected"),
    [
        ("hidden", "64,32", (128, 64), (64, 32)),
        ("hidden", "128", (128, 64), (128,)),
        ("hidden", "(128, 64)", (8,), (128, 64)),  # as messages show it
        ("hidden", "(128,)", (8,), (128,)),
        ("dropout", "0.1", 0.4, 0.1),
        ("epochs", "3", 10, 3),
        ("augment", "", ("affine",), ()),
    ],
)
def test_settings_take_the_type_of_their_default(name, value, like, expected):
    assert coerce(name, value, like) == expected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": "-1"}, "at least 1"),
        ({"epochs": "2.5"}, "int"),
        ({"learning_rate": "nan"}, "above 0"),
        ({"hidden": "a,b"}, "int values"),
        ({"hiden": "3"}, "Did you mean hidden"),
        ({"shape": "3"}, "the data decides"),
        ({"optimizer": "adamm"}, "Did you mean"),
        ({"augment": "flipp"}, "augmentation"),
        ({"weight_decay": "-1"}, "from 0 to 100"),
    ],
)
def test_wrong_settings_are_said(settings, says):
    config = {"shape": (3,), "outputs": 1, "hidden": (8,)}
    with pytest.raises(ZooError, match=says):
        apply_settings(config, TrainOptions(), settings, {"shape", "outputs"})


def test_options_survive_json():
    options = TrainOptions(epochs=3, augment=("affine",))
    assert TrainOptions.parse(json.loads(json.dumps(options.document()))) == options


def test_linear_baselines_are_scikit_learns():
    from sklearn.linear_model import Ridge

    from zoo.train.baseline import linear_model

    rng = np.random.default_rng(0)
    x, test = rng.normal(size=(200, 4)), rng.normal(size=(50, 4))
    y = x @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=200)
    values = linear_model(TASKS["regression"], x, y)(test)
    np.testing.assert_allclose(values[:, 0], Ridge().fit(x, y).predict(test))
    classes = np.digitize(y, [-1, 1])
    logits = linear_model(TASKS["multiclass"], x, classes)(test)
    assert logits.shape == (50, 3)
    truth = np.digitize(test @ [1.0, -2.0, 0.5, 0.0], [-1, 1])
    assert np.mean(logits.argmax(1) == truth) > 0.9
    one = linear_model(TASKS["binary"], x, (y > 0).astype(int))(test)
    assert one.shape == (50, 1)
