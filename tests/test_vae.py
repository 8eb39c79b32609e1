"""Variational autoencoders: the bound by hand and in closed form, binary draws, from training to report."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import bars

from zoo.data.core import open_data
from zoo.data.table import Request
from zoo.metrics import evaluate
from zoo.models import vae
from zoo.tasks import (
    Example,
    bernoulli_nats,
    gaussian_nats,
    get_task,
    latent_parts,
)

TINY = {"shape": (4, 3, 1), "latents": 2, "width": 6}


def bits(rows=5, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (rows, 4, 3, 1)).astype(np.float32)


def example(x):
    return Example(x, x.reshape(len(x), -1), np.zeros(len(x)))


# The bound ----------------------------------------------------------------------------------------


def test_the_bound_by_hand():
    """Two pixels with probabilities 3/4 and 1/5, a code with mean 1 and variance 4."""
    outputs = np.array([[np.log(3), np.log(0.25), 1.0, np.log(4.0)]])
    one = Example(np.array([[[[1.0]], [[0.0]]]]), np.array([[1.0, 0.0]]), np.zeros(1))
    on, expected, scores = get_task("generative").judge(outputs, one, {})
    reconstruction = -np.log(0.75) - np.log(0.8)
    divergence = 0.5 * (1 + 4 - 1 - np.log(4))
    assert scores == pytest.approx([reconstruction + divergence])
    assert on.tolist() == [1.0]
    assert expected == pytest.approx([0.95])
    assert evaluate("elbo", on, expected, scores) == pytest.approx(-scores[0])


def test_the_training_loss_is_minus_the_bound():
    from zoo.train.objective import build_loss
    from zoo.train.options import TrainOptions

    outputs = np.random.default_rng(1).normal(size=(5, 12 + 4)).astype(np.float32)
    one, task = example(bits()), get_task("generative")
    _, _, scores = task.judge(outputs, one, {})
    loss = build_loss(task, TrainOptions())
    assert float(loss(one.y, outputs)) == pytest.approx(scores.mean(), rel=1e-5)


def test_the_divergence_agrees_with_monte_carlo():
    mean, log_variance = np.array([[0.7, -1.2]]), np.array([[-0.5, 0.3]])
    noise = np.random.default_rng(0).standard_normal((400_000, 2))
    z = mean + np.exp(0.5 * log_variance) * noise
    inside = -0.5 * (noise**2 + log_variance).sum(axis=1)  # log q(z) and log p(z), less a constant
    outside = -0.5 * (z**2).sum(axis=1)
    drawn = inside - outside
    exact = gaussian_nats(mean, log_variance)[0]
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / np.sqrt(len(drawn))
    assert gaussian_nats(np.zeros((1, 3)), np.zeros((1, 3))) == pytest.approx([0.0])


def silent(model):
    """The model with a code that says nothing and a decoder that does not listen."""
    for name in ("mean", "log_variance"):
        layer = model.get_layer(name)
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    kernel, bias = model.get_layer("pixels").get_weights()
    bias = np.random.default_rng(3).normal(size=bias.shape).astype(np.float32)
    model.get_layer("pixels").set_weights([np.zeros_like(kernel), bias])
    return bias


def test_a_decoder_that_ignores_its_code_gives_the_bernoulli_likelihood():
    model = vae.build(False, **TINY)
    bias = silent(model)
    x = bits()
    _, _, scores = get_task("generative").judge(model(x, training=False).numpy(), example(x), {})
    share = 1 / (1 + np.exp(-bias.astype(np.float64)))
    flat = x.reshape(5, -1)
    expected = -(flat * np.log(share) + (1 - flat) * np.log(1 - share)).sum(axis=1)
    assert scores == pytest.approx(expected, rel=1e-6)
    assert bernoulli_nats(np.tile(bias, (5, 1)), flat) == pytest.approx(expected, rel=1e-6)


# The model ----------------------------------------------------------------------------------------


def test_evaluation_answers_the_same_picture_alike_and_others_with_other_noise():
    model = vae.build(False, **TINY)
    x = np.concatenate([bits(), bits()])
    code = vae_code(model)
    drawn, again = (np.asarray(code(x, training=False)) for _ in range(2))
    assert np.array_equal(drawn, again)
    assert np.allclose(drawn[:5], drawn[5:], atol=1e-6)
    trained, other = (np.asarray(code(x, training=True)) for _ in range(2))
    assert not np.allclose(trained, other)


def vae_code(model):
    from zoo.backend import keras

    return keras.Model(model.input, model.get_layer("code").output)


def test_the_fixed_noise_is_standard_normal_over_pictures():
    """What makes a single fixed draw an honest estimate: over pictures it is normal noise."""
    model = vae.build(False, shape=(28, 28, 1), latents=4, width=4)
    for name in ("mean", "log_variance"):
        layer = model.get_layer(name)
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    data = open_data(Request(data="mnist_5k", task="generative"))
    rows = np.arange(2000)
    raw = data.take(rows).astype(np.float32) / 255
    x = get_task("generative").settle({}, example(raw), rows).x
    noise = np.asarray(vae_code(model)(x, training=False))
    assert len(np.unique(noise[:, 0])) > 0.75 * vae.NOISE_ROWS  # 2,000 balls in 1,024 urns: 0.86
    assert np.abs(noise.mean(axis=0)).max() < 4 / np.sqrt(len(noise))
    assert np.abs(noise.var(axis=0) - 1).max() < 4 * np.sqrt(2 / len(noise))


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_beta_weighs_the_divergence_in_training_alone(beta):
    """Gradients are those of the reconstruction plus beta times the divergence; the loss is not."""
    from zoo.backend import keras, seed_everything, tf
    from zoo.train.objective import build_loss
    from zoo.train.options import TrainOptions

    seed_everything(0)
    model = vae.build(False, **TINY, beta=beta)
    x = bits()
    flat = x.reshape(5, -1)
    loss = build_loss(get_task("generative"), TrainOptions())
    layer = model.get_layer("code")

    def gradients(weigh):
        layer.generator.state.assign(keras.random.SeedGenerator(7).state)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            value = weigh(outputs)
        found = tape.gradient(value, model.trainable_variables)
        return float(value), [g.numpy() for g in found]

    def parts(outputs):
        logits, mean, log_variance = latent_parts(outputs, 12)
        lost = tf.reduce_mean(tf.reduce_sum(tf.math.softplus(logits) - flat * logits, axis=1))
        code = mean**2 + tf.exp(log_variance) - 1 - log_variance
        return lost, 0.5 * tf.reduce_mean(tf.reduce_sum(code, axis=1))

    value, found = gradients(lambda outputs: loss(flat, outputs))
    lost, by_lost = gradients(lambda outputs: parts(outputs)[0] + 0 * parts(outputs)[1])
    code, by_code = gradients(lambda outputs: parts(outputs)[1] + 0 * parts(outputs)[0])
    assert value == pytest.approx(lost + code, rel=1e-5)  # the bound itself, whatever beta is
    for whole, one, two in zip(found, by_lost, by_code, strict=True):
        assert np.allclose(whole, one + two, atol=1e-4)  # by_code went through the factor, too
    plain = vae.build(False, **TINY, beta=1.0)
    plain.set_weights(model.get_weights())
    plain_layer = plain.get_layer("code")
    plain_layer.generator.state.assign(keras.random.SeedGenerator(7).state)
    with tf.GradientTape() as tape:
        divergence = parts(plain(x, training=True))[1]
    expected = tape.gradient(divergence, plain.trainable_variables[:4])
    for ours, theirs in zip(by_code[:4], expected, strict=True):
        assert np.allclose(ours, beta * theirs.numpy(), atol=1e-4)
    assert np.allclose(plain(x, training=False), model(x, training=False))


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("shape", [(5, 6, 1), (8, 9, 3)])
def test_pictures_of_any_size(convolutional, shape):
    model = vae.build(convolutional, shape=shape, latents=3, width=4)
    assert model.output_shape == (None, int(np.prod(shape)) + 6)


# Binary draws -------------------------------------------------------------------------------------


def test_draws_are_new_in_every_step_and_have_the_right_mean():
    from zoo.backend import tf

    draw = get_task("generative").draw({})
    grey = tf.fill((4000, 2, 2, 1), 0.3)
    first, flat, weights = draw(grey, tf.zeros((4000, 4)), None, tf.constant([0, 1], tf.int64))
    again, *_ = draw(grey, tf.zeros((4000, 4)), None, tf.constant([0, 1], tf.int64))
    other, *_ = draw(grey, tf.zeros((4000, 4)), None, tf.constant([0, 2], tf.int64))
    assert weights is None
    assert set(np.unique(first)) == {0.0, 1.0}
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.reshape(first, (4000, 4)), flat)
    assert float(np.mean(first)) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 16_000))


def test_a_moved_picture_is_its_own_answer():
    """Augmentations come before the draw: what is to be reconstructed moves with the input."""
    from zoo.train.feed import Feed, Samples
    from zoo.train.options import TrainOptions

    grey = np.random.default_rng(0).random((40, 6, 6, 1)).astype(np.float32).round()
    samples = Samples(grey, grey.reshape(40, -1), draw=get_task("generative").draw({}))
    feed = Feed(samples, TrainOptions(batch_size=40, augment=("nudge",)), seed=1)
    ((x, y),) = [tuple(map(np.asarray, batch)) for batch in feed.epoch(0)]
    assert np.array_equal(x.reshape(40, -1), y)
    order = np.random.default_rng([1, 0]).permutation(40)
    moved = [not np.array_equal(a, b) for a, b in zip(x, grey[order], strict=True)]
    assert 20 < sum(moved) < 40  # one in nine stays where it is


def test_evaluation_draws_by_the_row_alone():
    settle, x = get_task("generative").settle, np.full((3, 4, 3, 1), 0.5, np.float32)
    whole = settle({}, example(x), np.array([10, 11, 12]))
    part = settle({}, example(x[:2]), np.array([12, 10]))
    assert np.array_equal(whole.x[[2, 0]], part.x)
    assert not np.array_equal(whole.x[0], whole.x[1])
    assert np.array_equal(whole.y, whole.x.reshape(3, -1))


# From training to report --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small VAE trained on own pictures."""
    from zoo import api

    root = tmp_path_factory.mktemp("vae")
    settings = {"epochs": "3", "width": "16", "latents": "3"}
    request = Request(data=str(bars(root / "bars.npz")))
    return api.train("vae", request=request, settings=settings, root=root / "runs")


def test_a_vae_is_trained_beside_independent_pixels(run):
    from zoo.run import Run
    from zoo.train.running import reopen

    assert run["baseline"]["name"] == "independent pixels"
    session = reopen(Run(Path(run["run"])))
    train, test = (session.data.parts[part] for part in ("train", "test"))
    share = (session.framed(train).y.sum(axis=0, dtype=np.float64) + 0.5) / (len(train) + 1)
    flat = session.example(test).y
    expected = (flat * np.log(share) + (1 - flat) * np.log(1 - share)).sum(axis=1).mean()
    assert run["baseline"]["metrics"]["elbo"] == pytest.approx(expected)


def test_an_audit_of_a_vae(run, zoo):
    folder = Path(run["run"])
    code, *_, document = zoo(
        "audit", folder, "int8", "--seconds", "0.1", "--json", "--runs", folder.parent
    )
    assert code == 0
    assert {row["metric"] for row in document["deltas"]} == {"elbo", "elbo_difference"}
    assert {row["attribute"] for row in document["deltas"]} > {"make"}
    page = (folder / "report.html").read_text()
    assert page.count('class="montage"') == 2 * 3
    assert "the explained output" in page
    with np.load(folder / "base" / "shown.npz", allow_pickle=False) as stored:
        assert stored["samples"].shape == (40, 12, 12, 1)
        assert stored["walk"].shape == (3, 10, 12, 12, 1)
    with np.load(folder / "base" / "explain.npz", allow_pickle=False) as stored:
        error = np.abs(stored["base"] + stored["values"].sum(axis=1) - stored["output"])
        assert error.max() < 1e-2 * np.ptp(stored["output"])
        assert (stored["output"] >= 0).all()  # a divergence
    assert zoo("report", folder, "--no-exemplars").code == 0
    assert 'class="montage"' not in (folder / "report.html").read_text()


def test_the_bound_of_own_pictures(run, zoo, tmp_path):
    more, out = bars(tmp_path / "more.npz", rows=7, seed=1), tmp_path / "out.csv"
    code, *_, document = zoo("predict", run["run"], more, "--output", out, "--json")
    assert code == 0
    assert document["results"][0]["n"] == 7
    for row in csv.DictReader(out.read_text().splitlines()):
        elbo, parts = float(row["elbo"]), (float(row["reconstruction"]), float(row["code"]))
        assert elbo == pytest.approx(parts[0] - parts[1])
        assert elbo < 0
