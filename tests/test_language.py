"""Language models: tokenizers, passages, windows that are judged, generation, own texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.data import passages, text
from zoo.errors import ZooError
from zoo.tasks import get_task

TEXTS = [
    "The cat sat on the mat, the café cat.",
    "",
    "the mat sat on the cat — naïve!",
    "the cat",
] * 5


class Rows:
    """Texts as ``preprocess.fit`` sees a data set."""

    columns: list = []

    def take(self, rows):
        return np.array(TEXTS)[rows]


def plan_of(name, **options):
    return text.fit(Rows(), {"tokenizer": name, **options}, np.arange(len(TEXTS)))


@pytest.mark.parametrize("name", ["bpe", "characters"])
def test_what_is_cut_is_joined_again(name):
    plan = plan_of(name, vocabulary=320)
    ids = text.apply(plan, TEXTS[:3])
    assert ids.dtype == np.int32
    assert [text.join(plan, row) for row in ids] == TEXTS[:3]
    letters = np.array(plan["characters"])[ids].sum(axis=1)
    assert letters.tolist() == [len(line) for line in TEXTS[:3]]  # bytes of é are one character
    assert plan == plan_of(name, vocabulary=320)


def test_wordpieces_stand_between_their_ends():
    plan = plan_of("wordpiece", vocabulary=120)
    ids = text.apply(plan, TEXTS[:2])
    assert text.decode(plan, ids[0])[:3].tolist() == ["[CLS]", "the", "cat"]
    assert ids[1].tolist()[:3] == [plan["start"], plan["end"], text.PADDING]
    assert text.join(plan, ids[0]) == "the cat sat on the mat, the café cat."
    short = text.encode(plan, TEXTS[:1], 4)
    assert short[0, -1] == plan["end"]  # a text that is cut off ends as well


def test_an_unknown_tokenizer_and_a_strange_vocabulary_are_refused():
    with pytest.raises(ZooError, match="tokenizer"):
        plan_of("letters")
    with pytest.raises(ZooError, match="WordPiece"):
        text.bert_plan(["the", "[PAD]"])


def test_blocks_of_a_document_do_not_meet():
    documents = {"a": "".join(chr(97 + k % 26) for k in range(30_000)), "b": "xyz" * 5_000}
    cut = passages.cut(documents, "passage", [0, 7])
    for name, document in documents.items():
        mine = cut.names == name
        assert "".join(cut.texts[mine]) == document[: sum(map(len, cut.texts[mine]))]
        split = cut.split[mine].tolist()
        changes = sum(a != b for a, b in zip(split, split[1:] + split[:1], strict=True))
        assert changes == 3  # three blocks of one ring
        assert 0.65 < split.count("train") / len(split) < 0.75
    again = passages.cut(documents, "passage", [0, 7])
    other = passages.cut(documents, "passage", [1, 7])
    assert (again.split == cut.split).all()
    assert (other.split != cut.split).any()


def test_damage_is_small_and_always_the_same():
    from difflib import SequenceMatcher

    line = "Now is the winter of our discontent"
    found = [passages.damage(line, [3, k]) for k in range(50)]
    assert found == [passages.damage(line, [3, k]) for k in range(50)]
    assert len(set(found)) > 40
    alike = [SequenceMatcher(None, line, one).ratio() for one in found]
    assert min(alike) > 0.7
    assert np.mean(alike) < 0.99
    pair = passages.damaged_lines(line, 0)[0].split(text.ANSWER)
    assert pair[1] == line


def test_each_token_is_judged_by_those_before_it():
    task, plan = get_task("causal_lm"), {"start": 1, "characters": [0, 0, 1, 3]}
    ids = np.array([[2, 3, 0], [3, 0, 0]], dtype=np.int32)
    example = task.frame(plan, ids, np.zeros(2))
    assert example.x.tolist() == [[1, 2, 3], [1, 3, 0]]
    logits = np.zeros((2, 3, 4), dtype=np.float32)
    logits[0, 0, 2] = 9.0  # right; at all other places the four tokens are alike, id 0 first
    judged = task.judge(logits, example, plan)
    assert judged[0].tolist() == [[2, 4], [1, 3]]
    assert judged[1].tolist() == [1, 0]
    right = np.log(np.exp(9) + 3) - 9
    assert np.allclose(judged[2], [(right + np.log(4)) / 2, np.log(4)])
    from zoo.metrics import evaluate

    bits = (right + 2 * np.log(4)) / np.log(2) / 7
    assert np.isclose(evaluate("bits_per_character", *judged), bits)
    assert np.isclose(evaluate("perplexity", *judged), np.exp((right + 2 * np.log(4)) / 3))
    assert np.isclose(evaluate("token_accuracy", *judged), 1 / 3)
    from zoo.backend import keras

    full = task.frame(plan, np.array([[2, 3, 2]], dtype=np.int32), np.zeros(1))
    for one, truth in ((example, [3, 3]), (full, [3])):  # the newest token in the window
        place = np.asarray(task.place(one.x, plan))
        assert one.y[np.arange(len(truth)), place].tolist() == truth
        said = keras.ops.one_hot(keras.ops.convert_to_tensor(one.y), 4)
        shown = np.asarray(task.explained(keras.ops.convert_to_tensor(one.x), said, plan))
        assert shown.argmax(axis=1).tolist() == truth


def test_trigrams_are_probabilities_and_know_what_they_saw():
    from zoo.train.ngrams import Trigrams

    rows = np.array([[1, 2, 3, 2, 3, 0], [1, 2, 4, 0, 0, 0]])
    model = Trigrams(rows, 6)
    for before in [(1,), (1, 2), (5, 5), (2, 3), ()]:
        assert np.isclose(model(before).sum(), 1)
        assert (model(before) > 0).all()
    # after (1, 2): 3 once, 4 once; after 2: 3 twice, 4 once
    lower = model((2,))
    assert np.isclose(model((1, 2))[3], 0.25 / 2 + 0.75 * lower[3])


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """A tiny GPT on a text of one's own, in which each word follows from the one before."""
    from zoo import api
    from zoo.data.table import Request

    root = tmp_path_factory.mktemp("gpt")
    path = root / "own.txt"
    rng = np.random.default_rng(0)
    words = [" one two three four five.", " red green blue.", " up and down again."]
    path.write_text("".join(words[k] for k in rng.integers(3, size=1500)), encoding="utf-8")
    settings = {"layers": 1, "heads": 2, "width": 16, "vocabulary": 300, "length": 32, "epochs": 12,
                "batch_size": 8, "learning_rate": 0.02, "dropout": 0.0}  # fmt: skip
    return api.train(
        "gpt_tiny", request=Request(data=str(path)), settings=settings, root=root / "runs", name="own",
        execution="graph:8",
    )  # fmt: skip


def test_learns_its_text_beside_trigrams(gpt):
    assert gpt["metrics"]["bits_per_character"] < 0.6
    assert gpt["baseline"]["name"] == "interpolated trigrams of tokens"
    assert gpt["baseline"]["metrics"]["bits_per_character"] < 0.6
    from zoo.run import BASE, Run

    base = Run(Path(gpt["run"])).variant(BASE)
    with np.load(base.path / "predictions.npz", allow_pickle=False) as stored:
        tokens, letters = stored["y_true"].T
        assert (stored["tokens"] == tokens).all()
        assert (stored["hits"] == stored["y_pred"]).all()
        nats = (stored["loss"] * tokens).sum()
        assert (stored["characters"] == letters).all()
    assert np.isclose(nats / letters.sum() / np.log(2), gpt["metrics"]["bits_per_character"])


@pytest.fixture
def session(gpt):
    from zoo.run import Run
    from zoo.train.running import reopen

    run = Run(Path(gpt["run"]))
    return reopen(run), run.variant("base")


def test_the_cache_changes_nothing(session):
    from zoo.generate import Cached, Choice, follow, whole

    opened, base = session
    model = opened.load(base.weights)
    ids = text.tokenizer_of(opened.plan).cut(opened.plan, [" red green"])[0]
    greedy = Choice(max_tokens=60, temperature=0)  # beyond the context of 32
    cached = follow(Cached(model), opened.plan, ids, greedy)
    assert cached == follow(whole(model), opened.plan, ids, greedy)
    assert text.join(opened.plan, cached).startswith(" blue.")
    window = np.full((1, 32), text.PADDING, dtype=np.int32)
    known = [opened.plan["start"], *ids]
    window[0, : len(known)] = known
    assert cached[0] == model(window, training=False).numpy()[0, len(known) - 1].argmax()


def test_a_choice_keeps_to_its_limits():
    from zoo.generate import Choice

    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))

    def drawn(**options):
        rng = np.random.default_rng(0)
        return {Choice(**options)(logits, rng) for _ in range(200)}

    assert drawn() == {0, 1, 2, 3}
    assert drawn(temperature=0) == {0}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_p=0.6) == {0, 1}
    assert drawn(top_p=0.5) == {0}
    assert drawn(top_k=3, top_p=0.4) == {0}


def test_zoo_generate(gpt, zoo):
    words = ["generate", gpt["run"], "--prompt", " one two", "--max-tokens", 12, "--json", "--seed"]
    first, again, other = zoo(*words, 5), zoo(*words, 5), zoo(*words, 6)
    (row,) = first.document["results"]
    assert {"variant", "prompt", "outputs", "seconds", "tokens_per_second"} <= set(row)
    assert row["outputs"] == again.document["results"][0]["outputs"]
    assert row["outputs"] != other.document["results"][0]["outputs"]
    bad = zoo("generate", gpt["run"], "--beams", 3, "--json")
    assert bad.code == 2
    assert "seq2seq" in bad.error["expected"]


def test_other_runs_make_no_texts(run_mlp, zoo):
    outcome = zoo("generate", run_mlp, "--json")
    assert outcome.code == 2
    assert "makes no texts" in outcome.error["message"]


def test_artefacts_generate_as_they_ship(gpt, zoo):
    zoo("compress", gpt["run"], "float16")
    words = ["generate", gpt["run"], "--prompt", " up", "--temperature", 0, "--max-tokens", 5]
    rows = zoo(*words, "--variant", "all", "--json").document["results"]
    assert [row["variant"] for row in rows] == ["base", "float16"]
    assert rows[0]["outputs"] == rows[1]["outputs"]


def own_answers(zoo, run, path, *more):
    """The lines that ``zoo predict RUN PATH`` writes."""
    import pandas as pd

    into = path.parent / f"answers-{len(list(path.parent.iterdir()))}.csv"
    outcome = zoo("predict", run, path, "--output", into, *more, "--json")
    (row,) = outcome.document["results"]
    answers = pd.read_csv(into)
    assert (outcome.code, row["n"], row["path"]) == (0, len(answers), str(into))
    return answers


def test_own_texts_are_told_how_likely_they_are(gpt, session, zoo, tmp_path):
    opened, base = session
    lines = [" one two three four five.", " blue one red and up down.", " up and down again." * 9]
    plain, table = tmp_path / "own.txt", tmp_path / "own.jsonl"
    plain.write_text("\n\n".join(lines))
    table.write_text("".join(f'{{"text": "{line}"}}\n' for line in [*lines, ""]))
    found = own_answers(zoo, gpt["run"], plain)
    assert found["characters"].tolist() == [len(line) for line in lines]
    (ids, *_, many) = text.tokenizer_of(opened.plan).cut(opened.plan, lines)
    assert found["tokens"][2] == len(many) > opened.plan["shape"][0]  # more than one context
    x = np.zeros((1, 32), dtype=np.int32)
    x[0, : len(ids)] = [opened.plan["start"], *ids[:-1]]
    logits = opened.load(base.weights)(x, training=False).numpy()[0, : len(ids)]
    nats = (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(ids)), ids]).sum()
    assert np.isclose(found["bits_per_character"][0], nats / np.log(2) / len(lines[0]), rtol=1e-4)
    assert np.isclose(found["perplexity"][0], np.exp(nats / len(ids)), rtol=1e-4)
    assert found["bits_per_character"][1] > 2 * found["bits_per_character"][0]
    zoo("compress", gpt["run"], "float16")
    small = own_answers(zoo, gpt["run"], table, "--variant", "float16")
    assert np.allclose(small["perplexity"][:3], found["perplexity"], rtol=0.05)
    assert small.loc[3, ["tokens", "characters"]].tolist() == [0, 0]
    assert np.isnan(small["perplexity"][3])
    plain.write_text("\n \n")
    assert "holds no text" in zoo("predict", gpt["run"], plain, "--json").error["message"]


def test_the_next_token_is_explained_and_shown(gpt):
    from zoo import api

    (found,) = api.explain(gpt["run"], samples=3, background=5, quality=False)["results"]
    assert found["method"] == "tokens"
    assert found["additive"]
    assert found["additivity_error"]["max"] <= 1e-3
    api.fairness(gpt["run"])
    html = Path(api.report(gpt["run"])["html"]).read_text()
    assert "Single texts" in html
    assert "&lt;|pad|&gt;" not in html
    assert "Bits per character" in html


def test_stretches_of_tokens_cover_a_text():
    from zoo.api.explaining import players_of

    plan = {"kind": "text", "shape": [10]}
    assert [p.name for p in players_of(plan)] == [f"token {k}" for k in range(1, 11)]
    found = players_of(plan, 4)
    assert [p.name for p in found] == [
        "tokens 1 to 3",
        "tokens 4 to 6",
        "tokens 7 to 9",
        "token 10",
    ]
    assert np.array_equal(np.concatenate([p.index for p in found]), np.arange(10))
    assert len(players_of(plan, 10)) == len(players_of(plan, 200)) == 10
    assert all(len(players_of({**plan, "shape": [n]}, 24)) <= 24 for n in range(1, 300))


def test_drift_of_a_long_text_plays_with_stretches_and_says_so(gpt):
    from zoo import api
    from zoo.api.explaining import DRIFT_STRETCHES, STRETCHES_BUDGET
    from zoo.run import Run

    document = api.audit(gpt["run"], ["float16"], seconds=0.05)
    run = Run(Path(gpt["run"]))
    (row,) = [row for row in document["drift"] if row["variant"] == "float16"]
    assert row["sample_cosine"] > 0.9  # half precision keeps the reasons
    stored = {}
    for name, file in (("base", "explain-permutation.npz"), ("float16", "explain.npz")):
        with np.load(run.path / name / file) as arrays:
            stored[name] = {key: arrays[key] for key in ("names", "values", "row")}
            assert "words" not in arrays
    assert stored["base"]["names"].tolist() == [f"tokens {k} to {k + 1}" for k in range(1, 32, 2)]
    assert len(stored["base"]["names"]) <= DRIFT_STRETCHES
    for key in ("names", "row"):
        assert np.array_equal(stored["base"][key], stored["float16"][key])
    (said,) = run.variant("float16").results("explain.json")
    assert "16 stretches of the input, of up to 2 tokens" in said["note"]
    assert f"{STRETCHES_BUDGET} calls" in said["note"]
    with np.load(run.path / "base" / "explain.npz") as plain:  # nobody coarsens base's own
        assert plain["names"].tolist() == [f"token {k}" for k in range(1, 33)]
        assert plain["words"].shape == plain["values"].shape[:2]


def test_tables_of_texts_train_language_models(tmp_path):
    import pandas as pd

    from zoo.data.core import open_data
    from zoo.data.table import Request

    rows = [f"some words of row number {k}" for k in range(40)]
    frame = pd.DataFrame({"id": range(40), "said": rows, "who": ["a", "b"] * 20})
    frame.to_csv(tmp_path / "said.csv", index=False)
    request = Request(data=str(tmp_path / "said.csv"), task="causal_lm", sensitive=("who",))
    data = open_data(request)
    assert data.kind == "text"
    assert data.x[3] == rows[3]
    assert set(data.groups["who"]) == {"a", "b"}
    assert any("'id'" in note for note in data.notes)
    frame[["id"]].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(ZooError, match="no column of texts"):
        open_data(Request(data=str(tmp_path / "none.csv"), task="causal_lm"))


def test_plain_text_has_no_labels(tmp_path):
    from zoo.data.core import open_data
    from zoo.data.table import Request

    path = tmp_path / "book.txt"
    path.write_text("word " * 2000)
    with pytest.raises(ZooError, match="without the labels"):
        open_data(Request(data=str(path), task="binary"))
    assert open_data(Request(data=str(path))).task == "causal_lm"
    path.write_bytes(b"\x00\x01" * 100)
    with pytest.raises(ZooError, match="could not be read"):
        open_data(Request(data=str(path)))


# BERT ---------------------------------------------------------------------------------------------


def test_hidden_tokens_are_the_shares_that_were_meant():
    from zoo.backend import tf
    from zoo.tasks import Example

    task = get_task("masked_lm")
    plan = {"special": [0, 1, 2, 3, 4], "mask": 4, "vocabulary": 1000}
    ids = np.random.default_rng(0).integers(5, 1000, (200, 50), dtype=np.int32)
    ids[:, 0], ids[:, 40:] = 2, 0
    raw = task.frame(plan, ids, np.zeros(200))
    assert raw.weights.sum() == 200 * 39
    draw = task.draw(plan)
    one = [np.asarray(a) for a in draw(raw.x, raw.y, raw.weights, tf.constant([1, 2], tf.int64))]
    two = [np.asarray(a) for a in draw(raw.x, raw.y, raw.weights, tf.constant([1, 3], tf.int64))]
    fixed = task.settle(plan, raw, np.arange(200))
    judged = (fixed.x, fixed.y, fixed.weights)
    for (x, y, hidden), share in ((one, 0.3), (two, 0.3), (judged, 0.15)):
        assert (y == ids).all()
        assert hidden[:, 0].sum() == hidden[:, 40:].sum() == 0
        count = hidden.sum()
        assert count / (200 * 39) == pytest.approx(share, abs=0.03)
        changed = x != ids
        assert (hidden[changed] == 1).all()
        assert 0.75 < (x == 4).sum() / count < 0.85
        assert 0.06 < (changed & (x != 4)).sum() / count < 0.14
    assert (one[2] != two[2]).any()
    again = task.settle(plan, Example(ids[7:8], ids[7:8], np.zeros(1), raw.weights[7:8]), [7])
    assert (again.x == fixed.x[7]).all()
    assert fixed.weights.sum(axis=1).min() >= 1


SMALL = {"layers": 1, "heads": 2, "width": 16, "positions": 32, "batch_size": 16, "dropout": 0.0}


def reviews(path, rows=160, seed=0):
    rng = np.random.default_rng(seed)
    some = ["film", "plot", "actor", "scene", "music", "end"]
    lines = ["review,liked,source"]
    for row in range(rows):
        good = bool(rng.integers(2))
        said = [*rng.choice(some, 3), "wonderful" if good else "dreadful"]
        lines.append(f"{' '.join(said)} n{row},{'yes' if good else 'no'},{'ab'[row % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    from zoo import api
    from zoo.data.table import Request

    root = tmp_path_factory.mktemp("bert")
    request = Request(data=str(reviews(root / "reviews.csv")), sensitive=("source",))
    settings = SMALL | {"epochs": 8, "vocabulary": 150, "learning_rate": 0.01}
    return api.train(
        "bert_tiny_mlm", request=request, settings=settings, root=root / "runs", name="mlm",
        execution="graph:4",
    )  # fmt: skip


@pytest.mark.parametrize("jit", [False, True])
def test_pre_training_learns_from_hidden_tokens_alone_what_all_logits_would_teach(jit):
    import tensorflow as tf

    from zoo.backend import keras
    from zoo.registry import models

    spec = models().get("bert_tiny_mlm")
    model = spec.build(**{**spec.config, **spec.tiny, "dropout": 0.0})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    rng = np.random.default_rng(0)
    tokens, truth = rng.integers(1, 40, (2, 8, 9)).astype(np.int32)
    weights = (rng.random((8, 9)) < 0.15).astype(np.float32)
    weights *= weights.size / weights.sum()  # as the feed makes them
    variables = model.trainable_variables
    before = [np.array(variable) for variable in variables]
    with tf.GradientTape() as tape:
        expected = loss(truth, model(tokens, training=True), sample_weight=weights)
    gradients = tape.gradient(expected, variables)
    step = tf.function(model.train_step, jit_compile=jit)
    assert float(step((tokens, truth, weights))["loss"]) == pytest.approx(float(expected), rel=1e-6)
    for variable, value, gradient in zip(variables, before, gradients, strict=True):
        change = value - np.array(variable)
        np.testing.assert_allclose(change, tf.convert_to_tensor(gradient), rtol=0, atol=1e-6)
    assert model(tokens).shape == (8, 9, 40)  # whoever asks gets all logits
    before = [np.array(variable) for variable in variables]
    assert np.isfinite(step((tokens, truth, 0 * weights))["loss"])  # a batch with nothing hidden
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_masked_tokens_are_restored_better_than_by_frequency(pretrained):
    assert pretrained["metrics"]["perplexity"] < pretrained["baseline"]["metrics"]["perplexity"]
    assert "bits_per_character" not in pretrained["metrics"]


def test_hidden_tokens_are_explained_and_audited(pretrained, tmp_path):
    """The output at the first ``[MASK]``, beside the token that it hides."""
    import shutil

    from zoo import api
    from zoo.run import Run
    from zoo.train.running import reopen

    run = Run(Path(shutil.copytree(pretrained["run"], tmp_path / "mlm")))
    (found,) = api.explain(str(run.path), samples=4, background=4, quality=False)["results"]
    assert found["method"] == "tokens"
    assert found["additivity_error"]["max"] <= 1e-3
    with np.load(run.path / "base" / "explain.npz", allow_pickle=False) as stored:
        rows, truth, told = (stored[name] for name in ("row", "truth", "predicted"))
    session = reopen(run)
    words = text.readable(session.plan)
    example, masked = session.example(rows), session.plan["mask"]
    logits = session.load(run.path / "base" / "model.weights.h5")(example.x).numpy()
    for k, ids in enumerate(example.x):
        place = ids.tolist().index(masked) if masked in ids else 0
        assert truth[k] == words[example.y[k, place]]
        assert told[k] == words[logits[k, place].argmax()]
    from zoo.api.explaining import _of_row

    task, model = get_task("masked_lm"), session.load(run.path / "base" / "model.weights.h5")
    row = next(ids for ids in example.x if masked in ids)
    asked = _of_row(task, session.plan, lambda ids: model(ids).numpy())(row)
    place = row.tolist().index(masked)
    np.testing.assert_array_equal(asked(example.x), logits[:, place])
    document = api.audit(str(run.path), ["float16"], seconds=0.05)
    assert [row["error"] for row in document["variants"]] == [None, None]
    assert "Single texts" in Path(document["report"]).read_text()


def test_own_texts_are_filled_in_and_judged(pretrained, zoo, tmp_path):
    path = tmp_path / "own.csv"
    said = ["film plot [MASK] wonderful", "film plot scene wonderful", "wonderful " * 70]
    path.write_text("review\n" + "\n".join(said) + "\n")
    found = own_answers(zoo, pretrained["run"], path)
    first, same, long = found["filled"]
    words = first.split()
    assert "[MASK]" not in first
    assert (words[:2], words[-1], len(words)) == (["film", "plot"], "wonderful", 4)
    assert same == said[1]
    assert len(long.split()) == 70  # several contexts
    assert found["tokens"][0] < found["tokens"][1]
    assert (found["pseudo_perplexity"] > 1).all()
    path.write_text("review\nfilm plot scene [MASK]\nactor music end wonderful\n")
    zoo("compress", pretrained["run"], "dynamic")
    small = own_answers(zoo, pretrained["run"], path, "--variant", "dynamic")
    base = own_answers(zoo, pretrained["run"], path)
    assert np.allclose(small["pseudo_perplexity"], base["pseudo_perplexity"], rtol=0.1)


def test_fine_tuning_starts_from_the_pretrained_layers_and_words(pretrained):
    from zoo import api
    from zoo.data.table import Request
    from zoo.run import Run

    run = Path(pretrained["run"])
    request = Request(
        data=str(run.parent.parent / "reviews.csv"), target="liked", sensitive=("source",)
    )
    more = {"request": request, "root": run.parent, "execution": "graph:4", "init_from": "mlm"}
    settings = SMALL | {"epochs": 6, "learning_rate": 0.005, "pool": "mean"}
    tuned = api.train("bert_tiny", settings=settings, name="tuned", **more)
    assert tuned["metrics"]["accuracy"] > 0.9
    plan = Run(run.parent / "tuned").plan()
    assert plan["words"] == Run(run).plan()["words"]
    taken = Run(run.parent / "tuned").document()["init"]["taken"]
    assert {"token_embedding", "position_embedding", "transformer_layer_0"} <= set(taken)
    (found,) = api.explain(tuned["run"], samples=8, background=10, quality=False)["results"]
    assert found["method"] == "tokens"
    assert found["additivity_error"]["max"] <= 1e-3
    assert {row["name"] for row in found["features"][:2]} == {"wonderful", "dreadful"}
    with pytest.raises(ZooError, match="vocabulary is that of the weights"):
        api.train("bert_tiny", settings={**settings, "vocabulary": 99}, **more)


def kernels(model):
    """path -> the kernels of a BERT's Transformer layers."""
    layers = model.get_layer("backbone").transformer_layers
    return {v.path: v for layer in layers for v in layer.weights if v.name == "kernel"}


def test_pretraining_starts_as_wide_as_bert_base(tmp_path):
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    from zoo.backend import keras
    from zoo.models.bert import build_bert, build_mlm
    from zoo.testing import unallocated

    sizes = {"vocabulary": 9, "layers": 1, "heads": 2, "positions": 32, "dropout": 0.1}
    made = []
    for build, more in ((build_mlm, {}), (build_bert, {"outputs": 1})):
        keras.utils.set_random_seed(0)
        made.append(kernels(build((8,), width=48, **sizes, **more)))
    wide, usual = made
    assert len(wide) == 6
    for path, kernel in wide.items():
        np.testing.assert_allclose(kernel, 4 * np.asarray(usual[path]), rtol=1e-6)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcd"]
    preset = preset_folder(tmp_path / "preset", words)
    given = kernels(build_mlm((8,), width=16, preset=str(tmp_path / "preset"), **sizes))
    for layer in preset.transformer_layers:  # published weights stay as they are
        for held in (v for v in layer.weights if v.name == "kernel"):
            np.testing.assert_array_equal(given[held.path], held)
    with unallocated():
        counted = kernels(build_mlm((8,), width=48, **sizes)).values()
        assert all(get_stateless_scope().get_current_value(kernel) is None for kernel in counted)


def preset_folder(path, words):
    from zoo.backend import keras_nlp

    backbone = keras_nlp.models.BertBackbone(len(words), 1, 2, 16, 64, max_sequence_length=32)
    backbone.save_to_preset(str(path))
    keras_nlp.tokenizers.BertTokenizer(words, lowercase=True).save_to_preset(str(path))
    return backbone


def test_a_preset_brings_its_sizes_words_and_weights(tmp_path):
    from zoo import api
    from zoo.data.table import Request
    from zoo.run import Run

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "plot", "wonderful", "dreadful"]
    backbone = preset_folder(tmp_path / "preset", words)
    path = reviews(tmp_path / "reviews.csv")
    request = Request(data=str(path), target="liked", sensitive=("source",))
    options = {"request": request, "root": tmp_path / "runs", "execution": "graph:4"}
    settings = {"preset": str(tmp_path / "preset"), "epochs": 1}
    shown = api.train("bert_tiny", settings=settings, dry_run=True, **options)
    assert shown["options"]["learning_rate"] == 5e-5
    assert shown["options"]["schedule"] == "linear"
    assert shown["options"]["warmup"] > 0
    made = api.train("bert_tiny", settings=settings | {"learning_rate": 1e-9}, **options)
    run = Run(Path(made["run"]))
    assert run.plan()["words"] == words
    import h5py

    with h5py.File(run.path / "base" / "model.weights.h5") as stored:
        found: list = []
        stored.visititems(
            lambda name, item: found.append(item[()]) if hasattr(item, "shape") else None
        )
    assert run.plan()["lowercase"] is True
    table = backbone.token_embedding.embeddings.numpy()
    assert any(item.shape == table.shape and np.abs(item - table).max() < 1e-5 for item in found)
    (tmp_path / "preset" / "assets/tokenizer/vocabulary.txt").write_text("[PAD]\n")
    with pytest.raises(ZooError, match="is no preset of a BERT"):
        api.train("bert_tiny", settings=settings, **options)


def test_a_preset_that_tells_cases_apart_is_cut_so(tmp_path):
    from zoo.backend import keras_nlp
    from zoo.data import text
    from zoo.models.presets import read

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Polish", "polish"]
    preset_folder(tmp_path / "cased", words)
    keras_nlp.tokenizers.BertTokenizer(words, lowercase=False).save_to_preset(tmp_path / "cased")
    encoding = read(str(tmp_path / "cased"))["encoding"]
    assert encoding["lowercase"] is False
    plan = {"tokenizer": "wordpiece", **text.bert_plan(words), "lowercase": False}
    row = text.TOKENIZERS["wordpiece"]
    assert [list(ids) for ids in row.cut(plan, ["Polish polish"])] == [[5, 6]]
    assert [list(ids) for ids in row.cut({**plan, "lowercase": True}, ["Polish polish"])] == [
        [6, 6]
    ]
    assert text.vocabulary_of(plan)["known"]["lowercase"] is False


def test_language_models_of_other_layers_are_read_as_a_whole():
    from zoo.backend import keras
    from zoo.generate import Cached, whole

    tokens = keras.Input((8,), dtype="int32")
    x = keras.layers.LSTM(4, return_sequences=True)(keras.layers.Embedding(20, 4)(tokens))
    model = keras.Model(tokens, keras.layers.Dense(20)(x))
    assert not Cached.takes(model)
    assert whole(model).start([3, 4]).shape == (20,)


def test_a_named_preset_without_a_network_says_what_to_do(tmp_path, zoo, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcome = zoo("train", "bert_tiny", "--preset", "bert_tiny_en_uncased", "--offline", "--json",
                  "--runs", tmp_path / "runs")  # fmt: skip
    assert outcome.code == 2
    assert "save_to_preset" in outcome.error["hint"]
    assert not (tmp_path / "runs").exists()


# From one text to another -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2)],
)
def test_edits(one, other, count):
    from zoo.tasks import edits

    assert edits(list(one), list(other)) == edits(list(other), list(one)) == count


def test_what_is_made_is_judged_by_its_letters():
    from zoo.metrics import evaluate

    task = get_task("seq2seq")
    plan = {"sides": 4, "start": 2, "end": 3, "characters": [0, 0, 0, 0, 1, 1, 1]}
    ids = np.array([[4, 5, 0, 0, 4, 6, 3, 0], [5, 0, 0, 0, 5, 3, 0, 0]], dtype=np.int32)
    example = task.frame(plan, ids, np.zeros(2))
    assert example.x[0].tolist() == [4, 5, 0, 0, 2, 4, 6, 3]
    assert example.weights.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    made = np.array([[4, 5, 5, 3], [5, 3, 0, 0]])  # one letter replaced, one too many; and right
    y, p, s = task.judge((np.zeros((2, 4, 7), np.float32), made), example, plan)
    assert y.tolist() == [[3, 2], [2, 1]]
    assert p[:, 1:].tolist() == [[2, 0], [0, 1]]
    assert np.allclose(s, np.log(7))
    assert evaluate("character_error_rate", y, p, s) == 2 / 3
    assert evaluate("exact_match", y, p, s) == 0.5


def following(table, side):
    """A model whose next token depends on the last one and on the source's letter at that place."""

    def function(x):
        return table[x[:, side:], x[:, :side]]

    return function


def test_guessing_all_at_once_is_one_token_after_the_other():
    from zoo.generate import _chances, beam_search
    from zoo.tasks import greedy

    side, vocabulary = 7, 9
    plan = {"sides": side, "start": 2, "end": 3}
    rng = np.random.default_rng(0)
    function = following(rng.normal(size=(vocabulary, vocabulary, vocabulary)), side)
    x = rng.integers(3, vocabulary, (20, 2 * side)).astype(np.int32)
    found = greedy(function, x, plan)
    for row, source in zip(found, x[:, :side], strict=True):
        chances = _chances(function, source[None], plan)
        ids: list[int] = []
        while len(ids) < side and 3 not in ids:
            ids.append(int(chances([ids])[0].argmax()))
        assert row[: len(ids)].tolist() == ids
        assert (row[len(ids) :] == text.PADDING).all()

        def worth(answer, chances=chances):
            return sum(float(chances([answer[:k]])[0, a]) for k, a in enumerate(answer))

        best = beam_search(chances, 6, side, 3)
        assert len(best) == 6
        assert worth(best[0]) >= worth(ids) - 1e-9
        assert worth(best[0]) == max(map(worth, best))


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    from zoo import api
    from zoo.data.table import Request

    root = tmp_path_factory.mktemp("pairs")
    path = root / "rhymes.txt"
    rng = np.random.default_rng(0)
    some = ["red hats and shoes", "green hills of home", "old songs we sing"]
    path.write_text("\n".join(some[k] for k in rng.integers(3, size=1600)))
    settings = {"layers": 1, "heads": 2, "width": 32, "epochs": 12, "batch_size": 16,
                "learning_rate": 0.01, "dropout": 0.0}  # fmt: skip
    return api.train(
        "transformer_seq2seq", request=Request(data=str(path)), settings=settings,
        root=root / "runs", name="pairs", execution="graph:8",
    )  # fmt: skip


def test_damaged_lines_are_restored_better_than_by_leaving_them(restorer):
    metrics, baseline = restorer["metrics"], restorer["baseline"]
    assert baseline["name"] == "the input as it is"
    assert baseline["metrics"]["exact_match"] < 0.1
    assert metrics["character_error_rate"] < baseline["metrics"]["character_error_rate"]
    assert metrics["exact_match"] > 0.8


def test_lines_are_restored_greedily_and_by_beams(restorer, zoo):
    words = ["generate", restorer["run"], "--prompt", "red hts and shoees", "--temperature", 0]
    (row,) = zoo(*words, "--json").document["results"]
    assert row["outputs"] == ["red hats and shoes"]
    (row,) = zoo(*words, "--beams", 3, "--json").document["results"]
    assert row["outputs"][0] == "red hats and shoes"
    assert len(row["outputs"]) == 3


def test_own_lines_are_restored(restorer, zoo, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("red hts and shoees\ngreen hils of home\n" + "old songs we sing " * 9)
    zoo("compress", restorer["run"], "float16")
    for variant in ("base", "float16"):
        found = own_answers(zoo, restorer["run"], path, "--variant", variant)
        assert found["restored"][:2].tolist() == ["red hats and shoes", "green hills of home"]
        assert found["unread"][:2].tolist() == [0, 0]
        assert 100 < found["unread"][2] < 9 * 18


def test_a_restored_letter_is_explained_by_the_line(restorer):
    from zoo import api

    (found,) = api.explain(restorer["run"], samples=2, background=4, quality=False)["results"]
    assert found["method"] == "tokens"
    assert found["additivity_error"]["max"] <= 1e-3
    api.fairness(restorer["run"])
    assert "Characters off" in Path(api.report(restorer["run"])["html"]).read_text()
