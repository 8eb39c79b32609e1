"""Training options: each does what its name says, against a formula or a peer."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.progress import QUIET
from zoo.tasks import TASKS
from zoo.train.feed import Feed, Samples
from zoo.train.losses import LOSSES, class_weights
from zoo.train.objective import build_loss, check_loss
from zoo.train.options import OPTIMIZERS, SCHEDULES, TrainOptions, apply_settings

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3)).astype("float32") * 2
LABELS = np.array([0, 2, 1, 1, 0])
LOGIT, HIT = LOGITS[:, :1], np.array([[0.0], [1], [1], [0], [1]], "float32")


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def loss_of(task, y, logits, **options):
    return float(build_loss(TASKS[task], TrainOptions(**options))(y, logits))


# Losses -------------------------------------------------------------------------------------------


def test_focal_is_its_formula():
    """-(1 - p)^gamma log p of the true class, by hand; gamma 0 is the cross-entropy."""
    p = softmax(LOGITS)[np.arange(5), LABELS]
    expected = np.mean(-((1 - p) ** 1.5) * np.log(p))
    assert loss_of("multiclass", LABELS, LOGITS, loss="focal", focal_gamma=1.5) == pytest.approx(
        expected, rel=1e-5
    )
    p = np.where(HIT == 1, 1, 0) + np.where(HIT == 1, -1, 1) * (1 - 1 / (1 + np.exp(-LOGIT)))
    p = np.where(HIT == 1, 1 / (1 + np.exp(-LOGIT)), 1 - 1 / (1 + np.exp(-LOGIT)))
    expected = np.mean(-((1 - p) ** 2) * np.log(p))
    assert loss_of("binary", HIT, LOGIT, loss="focal") == pytest.approx(expected, rel=1e-5)
    for task, y, logits in (("multiclass", LABELS, LOGITS), ("binary", HIT, LOGIT)):
        plain = loss_of(task, y, logits)
        assert loss_of(task, y, logits, loss="focal", focal_gamma=0.0) == pytest.approx(
            plain, rel=1e-5
        )
        assert loss_of(task, y, logits, loss="cross_entropy") == pytest.approx(plain, rel=1e-5)


def test_label_smoothing_is_its_formula():
    log_p = np.log(softmax(LOGITS))
    soft = np.eye(3)[LABELS] * 0.9 + 0.1 / 3
    expected = -np.mean(np.sum(soft * log_p, axis=1))
    assert loss_of("multiclass", LABELS, LOGITS, label_smoothing=0.1) == pytest.approx(
        expected, rel=1e-5
    )
    p, soft = 1 / (1 + np.exp(-LOGIT.astype("float64"))), HIT * 0.9 + 0.05
    expected = -np.mean(soft * np.log(p) + (1 - soft) * np.log(1 - p))
    assert loss_of("binary", HIT, LOGIT, label_smoothing=0.1) == pytest.approx(expected, rel=1e-5)


def test_losses_of_values_are_their_formulas():
    y, said = np.array([[0.0], [0], [0]], "float32"), np.array([[0.5], [-3], [2]], "float32")
    error = said - y
    for name, expected in {
        "default": np.mean(error**2),
        "mse": np.mean(error**2),
        "mae": np.mean(np.abs(error)),
        "huber": np.mean([0.5 * 0.25, 3 - 0.5, 2 - 0.5]),
        "log_cosh": np.mean(np.log(np.cosh(error))),
    }.items():
        assert loss_of("regression", y, said, loss=name) == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        ("binary", {"loss": "huber"}, "one of: default, cross_entropy, focal"),
        ("regression", {"loss": "focal"}, "one of: default, mse, mae, huber, log_cosh"),
        ("regression", {"label_smoothing": 0.1}, "a task with classes"),
        ("regression", {"class_weight": "balanced"}, "a task with classes"),
        ("causal_lm", {"class_weight": "balanced"}, "class_weight is for classes"),
        (
            "causal_lm",
            {"class_weight": "balanced", "label_smoothing": 0.1},
            "class_weight=balanced",
        ),
    ],
)
def test_an_unsuitable_loss_names_those_that_fit(task, options, says):
    with pytest.raises(ZooError) as error:
        check_loss(TASKS[task], TrainOptions(**options))
    assert says in str(error.value)
    assert error.value.exit_code == 2


def test_every_loss_suits_some_task():
    for name, row in LOSSES.items():
        assert any(task.loss in row for task in TASKS.values()), name


def test_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = RNG.choice([0, 1, 2], p=[0.7, 0.2, 0.1], size=500)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3), expected, rtol=1e-6)
    assert class_weights(np.array([0, 0, 2]), 3)[1] == 0  # a class without rows


def test_class_weights_reach_the_batches_and_follow_mixed_targets():
    images, labels = np.ones((8, 4, 4, 1), "float32"), np.array([0, 0, 0, 0, 0, 0, 1, 2])
    table = class_weights(labels, 3)
    samples = Samples(images, labels, class_weights=table)
    (_, y, weights), *_ = Feed(samples, TrainOptions(batch_size=8), 0).epoch(0)
    np.testing.assert_allclose(weights, table[y.numpy()])
    assert weights.numpy().mean() == pytest.approx(1)
    options = TrainOptions(batch_size=8, augment=("mixup",))
    (_, y, weights), *_ = Feed(samples, options, 0, classes=3).epoch(0)
    np.testing.assert_allclose(weights, y.numpy() @ table, rtol=1e-5)
    one_logit = Samples(images, (labels > 0).astype("float32")[:, None], class_weights=table[:2])
    (_, y, weights), *_ = Feed(one_logit, TrainOptions(batch_size=8), 0).epoch(0)
    np.testing.assert_allclose(weights, table[y.numpy()[:, 0].astype(int)])


# Steps --------------------------------------------------------------------------------------------


def rates(steps, **options):
    schedule = TrainOptions(learning_rate=0.1, **options).learning_rates(steps)
    return np.array([float(schedule(k)) if callable(schedule) else schedule for k in range(steps)])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (25.0, 25)])
def test_warm_up_rises_to_the_rate_and_the_schedule_follows(schedule, warmup, steps):
    found = rates(100, schedule=schedule, warmup=warmup)
    np.testing.assert_allclose(found[:steps], 0.1 * np.arange(1, steps + 1) / steps, rtol=1e-5)
    np.testing.assert_allclose(found[steps:], rates(100 - steps, schedule=schedule), rtol=1e-4)


def test_schedules_end_where_they_should():
    assert rates(100, schedule="constant")[-1] == 0.1
    linear = rates(100, schedule="linear")
    np.testing.assert_allclose(linear, 0.1 * (1 - np.arange(100) / 100), rtol=1e-4)
    exponential = rates(100, schedule="exponential")
    np.testing.assert_allclose(exponential, 0.1 * 0.01 ** (np.arange(100) / 100), rtol=1e-4)
    cosine = rates(100, schedule="cosine")
    np.testing.assert_allclose(cosine, 0.05 * (1 + np.cos(np.pi * np.arange(100) / 100)), atol=1e-7)


def one_step(options, start=1.0, gradients=(3.0, 4.0)):
    """The change of two weights that an optimizer makes of given gradients."""
    from zoo.backend import keras

    variables = [keras.Variable([start]), keras.Variable([start])]
    optimizer = options.build_optimizer(100)
    optimizer.build(variables)
    optimizer.apply([np.array([g], "float32") for g in gradients], variables)
    return np.array([float(v[0]) - start for v in variables])


def sgd(**more):
    more = {"weight_decay": 0.0, "momentum": 0.0, "schedule": "constant", **more}
    return TrainOptions(optimizer="sgd", learning_rate=0.1, **more)


def test_clipping_bounds_the_update():
    np.testing.assert_allclose(one_step(sgd()), [-0.3, -0.4], rtol=1e-5)
    # the norm of both gradients together is 5, and becomes 1
    np.testing.assert_allclose(one_step(sgd(clip_norm=1.0)), [-0.06, -0.08], rtol=1e-5)
    np.testing.assert_allclose(one_step(sgd(clip_norm=9.0)), [-0.3, -0.4], rtol=1e-5)
    np.testing.assert_allclose(one_step(sgd(clip_value=0.5)), [-0.05, -0.05], rtol=1e-5)
    with pytest.raises(ZooError, match="by norm or by value"):
        sgd(clip_norm=1.0, clip_value=1.0).check()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_against_the_gradient(name):
    plain = TrainOptions(optimizer=name, learning_rate=0.01, weight_decay=0.0, schedule="constant")
    assert (one_step(plain) < 0).all()
    decayed = TrainOptions(**{**plain.document(), "weight_decay": 0.5, "augment": ()})
    without = one_step(decayed, gradients=(0.0, 0.0))
    expected = 0.0 if name == "adam" else -0.01 * 0.5  # decoupled: Loshchilov & Hutter, ICLR 2019
    np.testing.assert_allclose(without, expected, atol=1e-7)


def net(classes=1):
    from zoo.backend import seed_everything
    from zoo.models.mlp import build_mlp

    seed_everything(0)
    return build_mlp((6,), classes, (8,), 0.0)


def problem(n=256):
    x = np.random.default_rng(1).normal(size=(n, 6)).astype("float32")
    return Samples(x, (x[:, :1] > 0).astype("float32"))


def fit(model, options, samples, task="binary"):
    from zoo.train.loop import fit

    rows = []
    fit(model, TASKS[task], options, samples, lambda: {"val_loss": 1.0}, seed=0, progress=QUIET,
        on_epoch=rows.append)  # fmt: skip
    return rows


def test_penalties_are_in_the_loss_and_shrink_kernels_alone():
    """The first loss differs by l1 * sum |w| + l2 * sum w^2 of the kernels."""
    options = {"epochs": 1, "batch_size": 256, "learning_rate": 1e-12, "optimizer": "sgd",
               "weight_decay": 0.0, "keep": "last"}  # fmt: skip
    model = net()
    kernels = [w.numpy() for w in model.trainable_variables if w.path.endswith("kernel")]
    penalty = sum(0.01 * np.abs(w).sum() + 0.1 * (w**2).sum() for w in kernels)
    (plain,) = fit(model, TrainOptions(**options), problem())
    (penalised,) = fit(net(), TrainOptions(**options, l1=0.01, l2=0.1), problem())
    assert penalised["loss"] - plain["loss"] == pytest.approx(penalty, rel=1e-4)
    biased = [v for v in model.trainable_variables if v.path.endswith("bias")]
    assert all(v.regularizer is None for v in biased)


def test_class_weights_lift_the_rare_class():
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.1).astype("float32")[:, None]
    x = (rng.normal(size=(600, 6)) + y).astype("float32")
    found = []
    for weights in (None, class_weights(y[:, 0].astype(int), 2)):
        model = net()
        fit(
            model,
            TrainOptions(epochs=5, batch_size=64, learning_rate=0.01),
            Samples(x, y, class_weights=weights),
        )
        found.append(float((model(x[y[:, 0] == 1]).numpy() > 0).mean()))
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize(
    "settings",
    [{"loss": "focal", "label_smoothing": "0.1"}, {"optimizer": "lion", "warmup": "0.2"},
     {"optimizer": "rmsprop", "schedule": "linear", "clip_value": "1"},
     {"schedule": "exponential", "warmup": "5", "clip_norm": "1", "l2": "1e-4"}],
    ids=str,
)  # fmt: skip
def test_options_train_together(settings):
    settings = {"learning_rate": 3e-3, "epochs": 4, "batch_size": 32, **settings}
    _, options = apply_settings({}, TrainOptions(), settings, set())
    x = np.random.default_rng(1).normal(size=(256, 6)).astype("float32")
    rows = fit(net(3), options, Samples(x, np.digitize(x[:, 0], [-0.5, 0.5])), "multiclass")
    assert rows[-1]["loss"] < rows[0]["loss"]


# Augmentation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    return RNG.random((16, 8, 8, 3)).astype("float32")


def call(name, images, seed=(3, 7)):
    from zoo.backend import tf
    from zoo.train.augment import AUGMENTATIONS

    found = AUGMENTATIONS[name].change(tf.constant(images), tf.constant(seed, tf.int64))
    return [f.numpy() for f in found] if isinstance(found, tuple) else found.numpy()


def test_flip_mirrors_some_and_leaves_the_others(images):
    flipped = call("flip", images)
    kinds = [
        "same" if np.array_equal(a, b) else "mirrored" if np.array_equal(a[:, ::-1], b) else "other"
        for a, b in zip(images, flipped, strict=True)
    ]
    assert set(kinds) == {"same", "mirrored"}


def test_crop_moves_by_whole_pixels(images):
    """Each result is a window of the picture in a frame of one zero (an eighth of 8 pixels)."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = set()
    for picture, result in zip(framed, call("crop", images), strict=True):
        places = [(r, c) for r in range(3) for c in range(3)
                  if np.allclose(picture[r : r + 8, c : c + 8], result)]  # fmt: skip
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 3


def test_rotation_and_zoom_keep_the_middle():
    image = np.zeros((4, 9, 9, 1), "float32")
    image[:, 4, 4] = 1
    for name in ("rotation", "zoom"):
        changed = call(name, image)
        np.testing.assert_allclose(changed[:, 4, 4], 1, atol=1e-5)
    disc = np.zeros((8, 21, 21, 1), "float32")
    rows, columns = np.mgrid[-10:11, -10:11]
    disc[:, rows**2 + columns**2 <= 36] = 1
    turned, zoomed = call("rotation", disc), call("zoom", disc)
    np.testing.assert_allclose(turned.sum((1, 2, 3)), disc[0].sum(), rtol=0.03)
    areas = zoomed.sum((1, 2, 3)) / disc[0].sum()
    assert areas.std() > 0.05
    assert (areas > 0.85**2 / 1.2).all()
    assert (areas < 1.25 / 0.85**2).all()


def test_mixup_is_the_stated_mean(images):
    mixed, partner, share = call("mixup", images)
    assert sorted(partner) == list(range(16))
    assert ((share >= 0) & (share <= 1)).all()
    own = share[:, None, None, None]
    np.testing.assert_allclose(mixed, own * images + (1 - own) * images[partner], atol=1e-6)


def test_mixup_shares_are_beta(images):
    """The mean of a Beta(a, a) is 1/2, its variance 1 / (4 (2 a + 1))."""
    from zoo.train import augment

    many = np.zeros((4000, 1, 1, 1), "float32")
    for name, alpha in (("mixup", augment.MIXUP), ("cutmix", augment.CUTMIX)):
        share = augment._share(many, np.array([1, 2]), alpha)[1].numpy()
        assert share.mean() == pytest.approx(0.5, abs=0.03), name
        assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06), name


def test_cutmix_keeps_the_stated_share(images):
    mixed, partner, share = call("cutmix", images)
    own = (mixed == images).all(axis=-1)
    other = (mixed == images[partner]).all(axis=-1)
    assert (own | other).all()
    for k in range(16):
        if partner[k] != k:
            assert own[k].mean() == pytest.approx(share[k], abs=1e-6)
    assert 0 < share.min() < 1


def test_randaugment_stays_in_range_and_changes_pictures(images):
    changed = call("randaugment", images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    gaps = np.abs(changed - images).max(axis=(1, 2, 3))
    assert np.unique(gaps.round(4)).size > 5  # each picture has a draw of its own


def test_randaugments_changes_are_pillows(images):
    """Autocontrast, equalize, solarize, posterize and sharpness against Pillow, on 8-bit pictures."""
    from PIL import Image, ImageEnhance, ImageOps

    from zoo.backend import tf
    from zoo.train import augment

    bytes_ = (images * 255).astype("uint8")
    exact = tf.constant(bytes_.astype("float32") / 255)
    factor = tf.fill([16], 1.27)
    found = [x.numpy() * 255 for x in augment._photometric(exact, factor)]
    bits = 8 - round(4 * augment.STRENGTH)
    peers = {
        1: lambda im: ImageOps.autocontrast(im),
        3: lambda im: ImageOps.solarize(im, 255 * (1 - augment.STRENGTH)),
        5: lambda im: ImageEnhance.Color(im).enhance(1.27),
        6: lambda im: ImageEnhance.Contrast(im).enhance(1.27),
        7: lambda im: ImageEnhance.Brightness(im).enhance(1.27),
        8: lambda im: ImageEnhance.Sharpness(im).enhance(1.27),
    }
    for k, peer in peers.items():
        for ours, picture in zip(found[k], bytes_, strict=True):
            theirs = np.asarray(peer(Image.fromarray(picture)), dtype="float32")
            assert np.abs(ours - theirs).max() < 2.5, k  # Pillow rounds to whole values, twice
    assert len(np.unique(found[4].round(3))) <= 2**bits
    ranks = np.sort(found[2][0, :, :, 0].ravel())
    assert ranks[0] == 0
    assert ranks[-1] == 255


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("classes", [3, 1])
def test_mixed_targets_sum_to_one_and_resume_repeats_them(images, name, classes):
    y = np.arange(16) % 3 if classes == 3 else (np.arange(16) % 2).astype("float32")[:, None]
    options = TrainOptions(batch_size=4, augment=("flip", name))
    feed = Feed(Samples(images, y), options, 5, classes=classes)
    whole = [[x.numpy() for x in batch] for batch in feed.epoch(1)]
    assert len(whole) == 4
    for _, targets in whole:
        assert targets.shape == (4, classes)
        assert ((targets >= 0) & (targets <= 1)).all()
        if classes == 3:
            np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert any(0.01 < t < 0.99 for _, targets in whole for t in targets.ravel())
    again = [[x.numpy() for x in batch] for batch in feed.epoch(1, start=2)]
    for one, two in zip(whole[2:], again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_filled_batches_are_augmented_like_whole_ones(images):
    """The real rows of a batch filled up for 3 replicas are what one device sees."""
    options = TrainOptions(batch_size=16, augment=("affine", "mixup"))
    samples = Samples(images, np.arange(16) % 3)
    ((x, y),) = Feed(samples, options, 1, classes=3).epoch(0)
    ((x3, y3, weights),) = Feed(samples, options, 1, classes=3, replicas=3).epoch(0)
    assert len(x3) == 18
    assert np.array_equal(x, x3[:16])
    assert np.array_equal(y, y3[:16])
    np.testing.assert_allclose(weights, [18 / 16] * 16 + [0, 0])


def test_training_with_mixed_targets_learns():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 192)
    x = rng.random((192, 8, 8, 1)).astype("float32") * 0.3
    for k in range(3):
        x[y == k, 2 * k : 2 * k + 2] += 0.7
    from zoo.backend import seed_everything
    from zoo.models.cnn import build_cnn

    seed_everything(0)
    model = build_cnn((8, 8, 1), 3, (4, 4), 8, 0.0)
    options = TrainOptions(epochs=8, batch_size=32, learning_rate=0.01, keep="last",
                           augment=("mixup", "cutmix"))  # fmt: skip
    fit(model, options, Samples(x, y), "multiclass")
    assert (model(x).numpy().argmax(1) == y).mean() > 0.9


def test_drop_path_leaves_out_the_branch_for_whole_samples():
    """In training each sample's last block is whole or gone; in inference nothing is dropped."""
    from zoo.backend import keras, seed_everything
    from zoo.models.resnet import build_resnet

    seed_everything(0)
    model = build_resnet((8, 8, 1), 3, (1, 1), (4, 6), drop_path=0.5)
    layers = [layer for layer in model.layers if layer.name.endswith("drop_path")]
    assert [layer.rate for layer in layers] == [0.25, 0.5]
    x = np.ones((64, 8, 8, 1), "float32")
    probe = keras.Model(model.input, [layers[-1].input, layers[-1].output])
    whole, dropped = (out.numpy() for out in probe(x, training=True))
    gone = np.array([not sample.any() for sample in dropped])
    assert 0 < gone.sum() < 64
    np.testing.assert_allclose(dropped[~gone], whole[~gone] * 2, rtol=1e-5)
    assert np.array_equal(*[out.numpy() for out in probe(x, training=False)])


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamw"}, {"optimizer": "sgd", "clip_norm": 0.05},
                 {"optimizer": "rmsprop"}, {"optimizer": "lion", "clip_value": 0.01}],
)  # fmt: skip
def test_an_embedding_learns_what_its_matrix_product_does(settings):
    """A token that a batch holds several times has one gradient, their sum."""
    from zoo.backend import keras, tf
    from zoo.train.fused import fused_kernels

    layers, rng = keras.layers, np.random.default_rng(0)
    tokens = rng.integers(0, 5, size=(16, 6)).astype("int32")
    y = rng.normal(size=(16, 1)).astype("float32")
    table, kernel = rng.normal(size=(5, 4)), rng.normal(size=(24, 1))

    def train(first: object, x: np.ndarray) -> np.ndarray:
        model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), first,
                                  layers.Flatten(), layers.Dense(1, use_bias=False)])  # fmt: skip
        model.set_weights([table, kernel])
        options = TrainOptions(learning_rate=0.01, **settings)
        model.compile(options.build_optimizer(20), "mse", jit_compile=False)
        data = tf.data.Dataset.from_tensors((x, y)).repeat(20)
        with fused_kernels():
            model.fit(data, shuffle=False, verbose=0)
        return np.asarray(model.get_weights()[0])

    looked_up = train(layers.Embedding(5, 4), tokens)
    multiplied = train(layers.Dense(4, use_bias=False), np.eye(5, dtype="float32")[tokens])
    assert np.abs(multiplied - table).max() > 0.01
    np.testing.assert_allclose(looked_up, multiplied, atol=1e-5)
