"""The verdict on a learning curve, on curves whose answer is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.train.advice import advise
from zoo.train.options import TrainOptions


def verdict(train, valid, constant=None, beaten=False, **more):
    rows = [
        {"epoch": k, "loss": loss, "val_loss": val}
        for k, (loss, val) in enumerate(zip(train, valid, strict=True), 1)
    ]
    options = {**TrainOptions().document(), **more}
    return advise(
        rows,
        options=options,
        config={"dropout": 0.4},
        kind="image",
        constant=constant,
        beaten=beaten,
    )


def falling(n, high=1.0, low=0.2, speed=3.0):
    """From high towards low, exponentially."""
    return [low + (high - low) * math.exp(-speed * k / n) for k in range(n)]


FLAT = [1.0, 0.5, 0.32, 0.305, 0.301, 0.3, 0.3, 0.301, 0.3, 0.3]


@pytest.mark.parametrize(
    ("train", "valid", "constant", "expected"),
    [
        ([1.0, 0.5], [1.0, 0.6], None, "too short"),
        # the validation loss fell by 0.6 to epoch 4 and rose by a third of that
        ([1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.08], [1, 0.7, 0.5, 0.4, 0.45, 0.5, 0.55, 0.6], None,
         "overfitting"),
        # the same rise, but the training loss does not fall on: no learning by heart
        ([1, 0.7, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4], [1, 0.7, 0.5, 0.4, 0.45, 0.5, 0.55, 0.6], None,
         "plateau"),
        ([1, 0.6, 0.4, 0.9, 1.4], [1, 0.6, 0.5, 0.9, 1.4], None, "diverging"),
        ([1, 0.6, 0.4, 0.5, 0.45], [1, 0.6, 0.5, 0.52, 0.51], None, "plateau"),
        ([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], None,
         "still improving"),
        (falling(20), falling(20, low=0.3), None, "still improving"),
        (falling(20, speed=12), falling(20, low=0.3, speed=12), None, "plateau"),
        (FLAT, FLAT, None, "plateau"),
        (FLAT, [0.69, 0.685, 0.684, 0.684, 0.684, 0.684, 0.684, 0.684, 0.684, 0.684], 0.693,
         "underfitting"),
        (FLAT, FLAT, 0.693, "plateau"),
    ],
)  # fmt: skip
def test_verdicts(train, valid, constant, expected):
    found = verdict(train, valid, constant)
    assert found["verdict"] == expected, found
    assert found["why"]
    assert found["change"]


def test_advice_names_what_is_not_done_yet():
    train, valid = [1, 0.7, 0.5, 0.4, 0.3, 0.2], [1, 0.7, 0.5, 0.6, 0.7, 0.8]
    said = " ".join(verdict(train, valid, keep="last")["change"])
    for text in ("keep=best", "patience=3", "augment=affine,mixup", "dropout=0.6", "weight_decay"):
        assert text in said
    said = " ".join(verdict(train, valid, patience=2, augment=["mixup"])["change"])
    assert "keep=best" not in said
    assert "patience" not in said
    assert "augment" not in said
    assert "lowest in epoch 3 (0.5) and rose to 0.8" in verdict(train, valid)["why"]


def test_the_scale_of_the_loss_does_not_matter():
    """The same curve in other units (nats of a whole picture, say) has the same verdict."""
    for factor in (1e-3, 500.0):
        for train, valid in ((FLAT, FLAT), (falling(20), falling(20, low=0.3))):
            plain = verdict(train, valid)["verdict"]
            scaled = verdict([factor * x for x in train], [factor * x for x in valid])
            assert scaled["verdict"] == plain


def test_a_real_training_is_judged(zoo, tmp_path):
    """Labels by chance can't be learned; a few rows are learned by heart by a large net."""
    rng = np.random.default_rng(0)
    lines = ["a,b,c,d,y"]
    lines += [",".join([*(f"{v:.4f}" for v in rng.normal(size=4)), rng.choice(["n", "y"])])
              for _ in range(200)]  # fmt: skip
    (tmp_path / "chance.csv").write_text("\n".join(lines))
    words = ("train", "mlp", "--data", tmp_path / "chance.csv", "--target", "y", "--runs",
             tmp_path / "runs", "--set", "dropout=0", "--set", "weight_decay=0",
             "--batch-size", 32)  # fmt: skip
    done = zoo(*words, "--epochs", 25, "--set", "hidden=128,128", "--set", "learning_rate=0.003",
               "--name", "a", "--json")  # fmt: skip
    assert done.document["advice"]["verdict"] == "overfitting", done.stderr
    done = zoo(*words, "--epochs", 8, "--set", "hidden=4", "--set", "learning_rate=1e-5",
               "--name", "b")  # fmt: skip
    assert "learning curve: " in done.stdout
    assert "  try: --set " in done.stdout


def test_a_curve_at_rest_below_the_linear_baseline_has_more_to_learn():
    found = verdict(FLAT, FLAT, beaten=True)
    assert found["verdict"] == "underfitting"
    assert found["change"][0] == "--epochs 40"
    assert "larger model" not in " ".join(found["change"])
