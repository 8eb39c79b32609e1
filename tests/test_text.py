"""Texts: words and ids, own files, the models that read them, attributions of words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zoo.data import preprocess, text
from zoo.errors import ZooError


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("It's GOOD :-)", ["it's", "good", ":-)"]),
        ("so bad!!! no-one", ["so", "bad", "!!!", "no", "-", "one"]),
        ("Été 2024", ["été", "2024"]),
        ("", []),
    ],
)
def test_words(sentence, expected):
    assert text.words(sentence) == expected


def test_vocabulary_is_of_words_that_several_texts_share():
    texts = ["b a a", "b c", "c b", "lonely lonely"]
    assert text.fit_vocabulary(texts, 10) == ["b", "c"]  # "a" twice in one text is one text
    assert text.fit_vocabulary(texts, 1) == ["b"]


def test_ids_stand_at_the_end_and_decode_to_words():
    plan = {"words": ["b", "c"]}  # as plans were before there was a choice of tokenizers
    ids = text.encode(plan, ["b new", "", "c b c b c"], 4)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[0, 0, 2, 1], [0, 0, 0, 1], [3, 2, 3, 2]]
    shown = text.decode(plan, ids)
    assert shown[0].tolist() == ["(padding)", "(padding)", "b", "(unknown)"]


def reviews(path, rows=240, seed=0, extra=False):
    """JSON lines or CSV: texts that are good or bad by one word, from two sources."""
    rng = np.random.default_rng(seed)
    some = ["film", "plot", "actor", "scene", "music", "end", "cut", "<b>", "story", "line"]
    lines = []
    for row in range(rows):
        good = bool(rng.integers(2))
        words = [*rng.choice(some, rng.integers(3, 9)), "wonderful" if good else "dreadful"]
        line = {
            "review": f"{' '.join(rng.permutation(words))} n{row}",
            "source": str(rng.choice(["web", "paper"])),
            "liked": "yes" if good else "no",
        }
        lines.append(line | ({"stars": float(rng.integers(1, 6))} if extra else {}))
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    else:
        import pandas as pd

        pd.DataFrame(lines).to_csv(path, index=False)
    return path  # fmt: skip


def opened(path, **more):
    from zoo.data.core import open_data
    from zoo.data.table import Request

    return open_data(Request(data=str(path), target="liked", sensitive=("source",), **more))


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.jsonl"])
def test_free_text_as_the_only_input_is_text_data(tmp_path, name):
    data = opened(reviews(tmp_path / name))
    assert data.kind == "text"
    assert data.classes == ("no", "yes")
    assert set(data.groups["source"]) == {"web", "paper"}
    assert any("free text" in note for note in data.notes)
    plan = preprocess.fit(data, {})
    assert plan["column"] == "review"
    assert {"wonderful", "dreadful"} < set(plan["words"])
    assert not any(word.startswith("n1") for word in plan["words"])  # each in a single row


def test_text_beside_other_inputs_stays_a_table(tmp_path):
    data = opened(reviews(tmp_path / "reviews.csv", extra=True))
    assert data.kind == "tabular"
    assert [c["name"] for c in data.columns if c["used"]] == ["stars"]


def test_the_vocabulary_is_of_the_training_rows(tmp_path):
    data = opened(reviews(tmp_path / "reviews.csv"))
    data.x[data.parts["test"]] = "unseen unseen words"
    assert "unseen" not in preprocess.fit(data, {})["words"]
    data.x[:] = [f"w{k}" for k in range(len(data.x))]
    with pytest.raises(ZooError, match="share no word"):
        preprocess.fit(data, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n[1, 2]\n', "line 2: list"),
        ('{"a": 1}\n{"a"\n', "Expecting"),
        ("\n\n", "no rows"),
    ],
)
def test_broken_json_lines_are_refused(tmp_path, content, message):
    from zoo.data.frames import read_frame

    path = tmp_path / "broken.jsonl"
    path.write_text(content)
    with pytest.raises(ZooError) as raised:
        read_frame(path)
    assert message in str(raised.value)


def test_a_line_without_a_key_has_it_missing(tmp_path):
    from zoo.data.frames import read_frame

    path = tmp_path / "some.jsonl"
    path.write_text('{"a": 1, "b": "x"}\n\n{"a": 2}\n{"a": 3, "b": null}\n')
    frame = read_frame(path)
    assert frame["a"].tolist() == [1, 2, 3]
    assert frame["b"].isna().tolist() == [False, True, True]


def mean_of_vectors(mask: bool = False):
    """A model whose expected gradients have a closed form: the mean word vector, weighed."""
    from zoo.backend import keras

    keras.utils.set_random_seed(3)
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(11, 4, mask_zero=mask)(tokens)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, keras.layers.Dense(2)(x))


def explained(model, method=None):
    from zoo_explain.attribution import columns_to_players, explain

    rng = np.random.default_rng(0)
    x, behind = (rng.integers(0, 11, (n, 5)).astype(np.int32) for n in (3, 4))
    found = explain(
        predict=lambda rows: model(rows, training=False).numpy(), model=model, x=x,
        background=behind, players=columns_to_players((f"t{k}", k, k + 1) for k in range(5)),
        space="logit", outputs=["no", "yes"], method=method,
    )  # fmt: skip
    return found, x, behind


def test_attributions_of_words_have_their_closed_form():
    model = mean_of_vectors()
    found, x, behind = explained(model)
    assert found.method == "tokens"
    vectors, (kernel, _) = model.layers[1].get_weights()[0], model.layers[3].get_weights()
    worth = vectors @ kernel / 5  # what a word adds to each output, wherever it stands
    for row, target in enumerate(found.targets):
        expected = worth[x[row], target] - worth[behind, target].mean(axis=0)
        assert np.allclose(found.values[row, :, 0], expected, atol=1e-5)
    assert found.dense is not None
    assert found.dense.shape == (3, 5, 1)


def test_attributions_of_words_agree_with_the_black_box_on_additive_models():
    model = mean_of_vectors()
    white, black = explained(model)[0], explained(model, "exact")[0]
    assert np.allclose(white.values, black.values, atol=1e-5)


def test_a_mask_stays_that_of_the_explained_row():
    model = mean_of_vectors(mask=True)
    found, x, behind = explained(model)
    assert found.method == "tokens"
    assert found.additive
    vectors, (kernel, _) = model.layers[1].get_weights()[0], model.layers[-1].get_weights()
    worth = vectors @ kernel
    for row, target in enumerate(found.targets):
        there = x[row] != 0  # filling has no say, in the row or in the base
        expected = (worth[x[row], target] - worth[behind, target].mean(axis=0)) / there.sum()
        assert np.allclose(found.values[row, :, 0], expected * there, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count"), [("lstm", 2), ("bilstm", 4), ("gru", 2), ("textcnn", 3)]
)
def test_recurrent_kernels_are_pruned(name, count):
    from zoo.compress import kernels
    from zoo.registry import models

    spec = models().get(name)
    model = spec.build(**{**spec.config, "shape": (5,), "vocabulary": 20})
    assert len(kernels(model)) == count


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An lstm on reviews, trained and explained."""
    from zoo import api
    from zoo.data.table import Request

    root = tmp_path_factory.mktemp("text")
    path = reviews(root / "reviews.jsonl")
    request = Request(data=str(path), target="liked", sensitive=("source",))
    settings = {"epochs": 20, "batch_size": 16, "width": 8, "embedding": 8, "learning_rate": 0.02}
    return api.train("lstm", request=request, settings=settings, root=root / "runs", name="words")


def test_learns_what_words_mean_beside_tf_idf(run):
    assert run["baseline"]["name"] == "TF-IDF with logistic regression"
    assert run["baseline"]["metrics"]["accuracy"] == 1.0
    assert run["metrics"]["accuracy"] > 0.9


def test_own_texts_are_predicted(run, tmp_path):
    import pandas as pd

    from zoo import api

    path = tmp_path / "new.csv"
    path.write_text(
        'review\n"a wonderful story, wonderful film"\ndreadful plot and dreadful end\n""\n'
    )
    out = tmp_path / "answers.csv"
    api.predict(run["run"], source=path, output=out)
    assert pd.read_csv(out)["prediction"].tolist()[:2] == ["yes", "no"]
    other = tmp_path / "other.csv"
    other.write_text("words,more\nwonderful,1\n")
    with pytest.raises(ZooError, match="Unknown column 'review'"):
        api.predict(run["run"], source=other, output=tmp_path / "others.csv")


def test_recipes_that_do_not_apply_are_left_out_and_said(run):
    from pathlib import Path

    from zoo import api
    from zoo.api.auditing import DEFAULT_RECIPES
    from zoo.api.compressing import opened_where_applicable
    from zoo.progress import Progress
    from zoo.run import Run

    said: list[str] = []

    class Heard(Progress):
        def say(self, text):
            said.append(text)

    def planned(recipes):
        found = opened_where_applicable(Run(Path(run["run"])), recipes, "base", Heard())[1]
        return [recipe for recipe, _ in found]

    assert planned(DEFAULT_RECIPES) == list(DEFAULT_RECIPES)
    assert said == []
    assert planned(("dynamic", "int16x8", "prune:0.7+int16x8")) == ["dynamic"]
    assert [line.split(":")[0] for line in said] == ["int16x8", "prune"]
    with pytest.raises(ZooError, match="'int16x8' does not apply to 'lstm'"):
        api.compress(run["run"], ["int16x8"])


def test_a_recipe_that_crashes_the_converter_leaves_the_others(run, tmp_path, zoo, monkeypatch):
    """A real crash, in the child process: an error row, exit code 1, and the other recipe is made."""
    import shutil

    from zoo import quantizable

    monkeypatch.setattr(quantizable, "LONGEST_UNROLLED", 0)
    copy = shutil.copytree(run["run"], tmp_path / "words")
    code, _, error, document = zoo("compress", copy, "int8", "dynamic", "--json")
    assert code == 1
    rows = {row["variant"]: row for row in document["results"]}
    assert "SIGSEGV" in rows["int8"]["error"]
    assert "SIGSEGV" in error
    assert rows["dynamic"]["error"] is None
    assert not (copy / "int8").exists()
    assert (copy / "dynamic" / "model.tflite").exists()


def test_words_are_explained_and_reported(run):
    from pathlib import Path

    from zoo import api

    (found,) = api.explain(run["run"], samples=20, background=10)["results"]
    assert found["method"] == "tokens"
    # Each text has one of the two words, so a model may go by one of them alone.
    assert found["features"][0]["name"] in {"wonderful", "dreadful"}
    api.fairness(run["run"])
    html = Path(api.report(run["run"])["html"]).read_text()
    assert "Single texts" in html
    assert ">wonderful</span>" in html
    assert "&lt;" in html  # what a text holds is never markup
    assert "<b></span>" not in html
    private = Path(api.report(run["run"], private=True)["html"]).read_text()
    assert "Single texts" not in private
