"""Pruning with TF-MOT's engine on Keras 3, recipes, and the variants they make."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest

from zoo.compress.recipe import parse, slug
from zoo.compress.steps import STEPS
from zoo.errors import ZooError


def small_model(width: int = 40):
    from zoo.backend import keras, seed_everything

    seed_everything(3)
    inputs = keras.Input((20,))
    x = keras.layers.Dense(width, activation="relu", name="one")(inputs)
    x = keras.layers.Dense(width, activation="relu", name="two")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="three")(x))


@pytest.mark.parametrize("per_call", [1, 8, 64])
def test_pruning_reaches_the_target_at_any_steps_per_execution(per_call):
    """40 steps an epoch, 2 epochs: with 64 steps a call the schedule is asked twice in all."""
    from zoo.backend import keras
    from zoo.compress import Pruner

    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 20)).astype("float32")
    y = x[:, :1] * 2 - x[:, 1:2]
    model = small_model()
    pruner = Pruner(model, 0.8, begin=0, end=50, every=5)
    model.compile("adam", "mse", steps_per_execution=per_call)
    model.fit(x, y, epochs=2, batch_size=16, verbose=0, callbacks=[pruner.callback()])
    shares = [float(np.mean(np.asarray(p.kernel) == 0)) for p in pruner.kernels]
    # "three" has 40 weights, under the limit below which a kernel is left alone
    assert [p.name for p in pruner.kernels] == ["two"] or len(shares) == 1
    assert shares == pytest.approx([0.8], abs=1e-3)
    pruner.release()
    assert all(p.kernel.constraint is None for p in pruner.kernels)
    assert isinstance(model, keras.Model)


def test_masks_hold_inside_a_compiled_call():
    """Between two calls of 16 steps no pruned weight comes back."""
    from zoo.compress import Pruner

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 20)).astype("float32")
    model = small_model()
    pruner = Pruner(model, 0.5, begin=0, end=1, every=1000)
    pruner.finish()
    gone = [np.asarray(p.kernel) == 0 for p in pruner.kernels]
    model.compile("adam", "mse", steps_per_execution=16)
    model.fit(x, x[:, :1], epochs=2, batch_size=8, verbose=0)
    for pruned, zero in zip(pruner.kernels, gone, strict=True):
        assert (np.asarray(pruned.kernel)[zero] == 0).all()
        assert (np.asarray(pruned.kernel)[~zero] != 0).mean() > 0.99


def test_the_largest_weights_stay():
    from zoo.compress import Pruner

    model = small_model()
    before = model.get_layer("two").kernel.numpy()
    Pruner(model, 0.9, begin=0, end=1, every=1).finish()
    after = model.get_layer("two").kernel.numpy()
    kept = np.abs(before)[after != 0].min()
    assert kept >= np.abs(before)[after == 0].max()
    assert np.array_equal(after[after != 0], before[after != 0])


def test_gzip_of_a_pruned_kernel():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=50_000).astype("float32")
    sparse = np.where(np.abs(dense) < np.quantile(np.abs(dense), 0.8), 0, dense).astype("float32")
    ratio = len(gzip.compress(dense.tobytes())) / len(gzip.compress(sparse.tobytes()))
    assert ratio > 3.5


def test_recipes_are_parsed_and_named():
    steps = parse("prune:0.8+int8")
    assert [step.step.name for step in steps] == ["prune", "int8"]
    assert dict(steps[0].options) == {"sparsity": 0.8}
    assert slug(["prune:0.8", "int8"]) == "prune-0.8_int8"


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("prune:2by4", {"sparsity": None, "by": (2, 4)}),
        ("prune:0.5:global", {"sparsity": 0.5, "across": True}),
        ("prune:0.5:all:4x1", {"sparsity": 0.5, "layers": "all", "block": (4, 1)}),
        ("cluster:16", {"number": 16}),
        ("distill:mlp", {"model": "mlp"}),
    ],
)
def test_arguments_become_options(recipe, options):
    (step,) = parse(recipe)
    assert dict(step.options) == options


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("prune:1.5", "between 0 and 1"),
        ("prune", "between 0 and 1"),
        ("prune:abc", "between 0 and 1"),
        ("prune:nan", "between 0 and 1"),
        ("prune:4by2", "between 0 and 1"),
        ("prune:0.5:1x1", ":4x1"),
        ("prune:0.5:everything", ":global"),
        ("prune:2by4:global", ":global"),
        ("cluster", "2 to 256"),
        ("cluster:1", "2 to 256"),
        ("cluster:16.5", "2 to 256"),
        ("qat:8", "no argument"),
        ("qat+prune:0.5", "would undo"),
        ("cluster:16+prune:0.5", "prune:0.5+cluster:16"),
        ("prune:0.8+prune:0.5", "'prune' once"),
        ("qat+qat", "'qat' once"),
        ("distill", "a model of the zoo"),
        ("distill:mpl", "Did you mean mlp"),
        ("int8:3", "no argument"),
        ("int8+prune:0.5", "last step"),
        ("float16+int8", "last step"),
        ("int9", "Did you mean int8"),
        ("", "one of"),
        ("+", "one of"),
        ("prune:0.5+", "one of"),
    ],
)
def test_wrong_recipes_say_what_is_expected(recipe, says):
    with pytest.raises(ZooError) as error:
        parse(recipe)
    assert says in str(error.value)
    assert error.value.exit_code == 2


def test_every_step_is_documented():
    for name, step in STEPS.items():
        assert step.name == name
        assert step.kind in ("retrain", "transform")
        assert step.help
        assert step.source


def test_variants_of_a_run(zoo, run_mlp):
    """The real thing on a small run: all recipes, chained ones from the same pruned weights."""
    from zoo.predictions import Predictions

    recipes = ["float16", "dynamic", "int8", "prune:0.6", "prune:0.6+int8"]
    code, _, _, document = zoo("compress", str(run_mlp), *recipes, "--json")
    assert code == 0
    rows = {row["variant"]: row for row in document["results"]}
    assert list(rows) == ["float16", "dynamic", "int8", "prune-0.6", "prune-0.6_int8"]
    for row in rows.values():
        assert row["error"] is None
        said = Predictions.load(run_mlp / row["variant"] / "predictions.npz")
        hits = float(np.mean(said.y_true == said.y_pred))
        assert row["metrics"]["accuracy"] == pytest.approx(hits, abs=1e-12)
        content = (run_mlp / row["variant"] / "model.tflite").read_bytes()
        assert row["bytes"] == len(content)
        assert row["parity"]["n"] > 0
        assert math.isfinite(row["parity"]["max_abs"])
    assert rows["prune-0.6"]["kind"] == "retrain"
    assert rows["prune-0.6_int8"]["parent"]["variant"] == "prune-0.6"
    assert rows["int8"]["parent"]["variant"] == "base"
    for name in ("prune-0.6", "prune-0.6_int8"):
        assert rows[name]["sparsity"] == pytest.approx(0.6, abs=0.005)
        assert all(abs(la["sparsity"] - 0.6) <= 0.005 for la in rows[name]["layers"])
    assert rows["float16"]["parity"]["max_abs"] < 0.05

    code, _, error, again = zoo("compress", str(run_mlp), "int8", "--json")
    assert code == 0
    assert "there already" in error
    assert again["results"][0]["created"] == rows["int8"]["created"]
    (run_mlp / "int8" / "model.tflite").write_bytes(b"cut off")
    code, _, error, _ = zoo("compress", str(run_mlp), "int8")
    assert code == 2
    assert "is not the file that variant 'int8' was made with" in error
    assert "Remove the folder" in error


def test_a_converted_variant_is_no_parent(zoo, run_mlp):
    zoo("compress", str(run_mlp), "int8")
    code, _, error, _ = zoo("compress", str(run_mlp), "prune:0.5", "--variant", "int8")
    assert code == 2
    assert "converted for good" in error
    assert not (run_mlp / "int8_prune-0.5").exists()


def test_a_variant_of_another_parent_is_not_reused(zoo, run_mlp):
    zoo("compress", str(run_mlp), "dynamic")
    path = run_mlp / "base" / "variant.json"
    path.write_text(path.read_text().replace('"recipe": ""', '"recipe": "" '))
    code, _, error, _ = zoo("compress", str(run_mlp), "dynamic")
    assert code == 2
    assert "another 'base'" in error


@pytest.mark.parametrize("words", [("compress",), ("compress", "--sweep"), ("audit",)])
@pytest.mark.parametrize(
    ("recipe", "said"),
    [("distill:cnn+int8", "cnn"), ("keras:gptq", "does not apply"), ("float16", "half-made")],
)
def test_what_does_not_fit_is_refused_before_any_work(zoo, run_mlp, words, recipe, said):
    if said == "half-made":
        (run_mlp / "float16").mkdir()
        said = "exists already"
    command, *flags = words
    code, _, error, _ = zoo(command, run_mlp, *flags, "prune:0.55", recipe)
    assert code == 2
    assert said in error
    assert not (run_mlp / "prune-0.55").exists()


def test_every_kernel_that_was_pruned_keeps_its_zeros_while_others_are_clustered(zoo, run_cnn):
    """Small kernels are pruned by :all, and not clustered."""
    from zoo.kernels import kernels
    from zoo.run import Run
    from zoo.train.running import reopen

    code, _, error, _ = zoo("compress", str(run_cnn), "prune:0.6:all+cluster:4", "--json")
    assert code == 0, error
    run = Run(run_cnn)
    session = reopen(run)
    pruned, clustered = (
        kernels(session.load(run.variant(name).weights), "all")
        for name in ("prune-0.6-all", "prune-0.6-all_cluster-4")
    )
    moved = 0
    for before, after in zip(pruned, clustered, strict=True):
        gone = np.asarray(before.variable) == 0
        assert gone.mean() > 0.5
        assert (np.asarray(after.variable)[gone] == 0).all(), after.name
        moved += bool((np.asarray(after.variable) != np.asarray(before.variable)).any())
    assert moved == len(pruned)


def test_chains_keep_what_was_made_before(zoo, run_mlp):
    """Sparse, then clustered, then on an int8 grid, then int8: each variant is what its name says."""
    from zoo.run import Run
    from zoo.train.running import reopen

    chain = "prune:0.5+cluster:8+qat+int8"
    code, _, error, document = zoo("compress", str(run_mlp), chain, "--json")
    assert code == 0, error
    assert document["results"][0]["sparsity"] >= 0.5 - 1e-3
    run = Run(run_mlp)
    names = ["prune-0.5", "prune-0.5_cluster-8", "prune-0.5_cluster-8_qat"]
    assert set(names) < set(run.variants())
    session = reopen(run)
    last = [session.load(run.variant(name).weights).layers[-1].get_weights()[0] for name in names]
    assert len({values.tobytes() for values in last}) == 3  # each trained on
    pruned, clustered, rounded = (
        session.load(run.variant(name).weights).get_layer("dense_2").get_weights()[0]
        for name in names
    )
    assert (clustered[pruned == 0] == 0).all()
    assert (rounded[clustered == 0] == 0).all()
    assert len(np.unique(clustered)) <= 8
    assert max(len(np.unique(column)) for column in rounded.T) <= 8
    steps = rounded / np.maximum(np.abs(rounded).max(axis=0) / 127, 1e-30)
    assert np.abs(steps - steps.round()).max() < 1e-3

    code, _, error, _ = zoo("compress", str(run_mlp), "prune:0.9", "--variant", names[-1])
    assert code == 2
    assert "would undo" in error


def test_other_patterns_and_widths(zoo, run_cnn):
    recipes = ["prune:2by4:all", "prune:0.5:global", "int16x8"]
    code, _, error, document = zoo("compress", str(run_cnn), *recipes, "--json")
    assert code == 0, error
    rows = {row["variant"]: row for row in document["results"]}
    assert rows["prune-0.5-global"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert rows["prune-2by4-all"]["sparsity"] == pytest.approx(0.5, abs=0.05)
    assert rows["int16x8"]["parity"]["max_abs"] < 0.05
    assert rows["int16x8"]["sparsity"] < 0.01


def test_distilled_variant_is_another_model(zoo, run_cnn):
    """It has a config of its own, trains on, is converted, explained and judged like any other."""
    code, _, error, document = zoo("compress", str(run_cnn), "distill:mlp+prune:0.5+int8", "--json")
    assert code == 0, error
    row = document["results"][0]
    assert row["model"]["name"] == "mlp"
    assert row["model"]["config"]["shape"] == [12, 12, 1]
    assert row["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert row["parity"]["agreement"] > 0.9
    code, _, error, document = zoo(
        "explain", str(run_cnn), "--variant", "distill-mlp_prune-0.5", "--samples", "4", "--json"
    )
    assert code == 0, error
    code, _, error, _ = zoo("compress", str(run_cnn), "distill:cnn", "--variant", "distill-mlp")
    assert code == 0, error
    assert (run_cnn / "distill-mlp_distill-cnn" / "model.tflite").exists()


def test_a_student_trains_by_its_own_options_but_for_what_the_run_was_given(run_cnn):
    from zoo.registry import models
    from zoo.run import Run
    from zoo.train.running import reopen

    session = reopen(Run(run_cnn))  # --epochs 2 --batch-size 32, which is cnn's own
    student = session.as_model("mlp").options
    assert (student.epochs, student.batch_size) == (2, models().get("mlp").train["batch_size"])
    assert student.learning_rate == models().get("mlp").train["learning_rate"]


def test_a_row_that_failed_has_the_name_that_it_would_have_had(zoo, run_mlp):
    from zoo.api.compressing import _failed_row
    from zoo.run import Run

    assert zoo("compress", run_mlp, "prune:0.6").code == 0
    row = _failed_row(Run(run_mlp), "prune-0.6", " qat + int8", "gave up")
    expected = ("prune-0.6_qat_int8", "prune:0.6+qat+int8", "transform", "gave up")
    assert tuple(row[name] for name in ("variant", "recipe", "kind", "error")) == expected
    assert _failed_row(Run(run_mlp), "base", "qat", "gave up")["kind"] == "retrain"
