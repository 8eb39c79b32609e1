"""Texts from language models: what follows a prompt, token by token; and what they say of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zoo.data import text
from zoo.data.table import take_rows
from zoo.errors import ZooError
from zoo.predict import compiled, open_artifact
from zoo.tasks import PADDING, get_task, greedy

if TYPE_CHECKING:
    from zoo.run import Variant
    from zoo.train.session import Session

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen from its logits.

    ``temperature`` divides them; 0 takes the most probable. ``top_k`` keeps so many tokens (0: all),
    ``top_p`` the most probable ones that together have this probability (nucleus sampling, Holtzman
    et al., ICLR 2020). ``beams`` above 1 searches for the most probable text.
    """

    max_tokens: int = 100
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1

    def __call__(self, logits: np.ndarray, rng: np.random.Generator) -> int:
        """The id that is chosen from logits (vocabulary,); -inf is never chosen."""
        if self.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        scaled = logits[order].astype(np.float64) / self.temperature
        chances = np.exp(scaled - scaled[0])
        chances /= chances.sum()
        kept = np.cumsum(chances) - chances < self.top_p  # the first is always kept
        if self.top_k:
            kept[self.top_k :] = False
        chances *= kept
        return int(order[rng.choice(len(order), p=chances / chances.sum())])


class Reader(Protocol):
    """A causal model that reads tokens: each call gives the logits (vocabulary,) of what follows."""

    length: int

    def start(self, ids: Sequence[int]) -> np.ndarray:
        """Forget what was read and read ids, at most ``length`` of them."""

    def add(self, token: int) -> np.ndarray:
        """Read one token more."""


class Whole:
    """A :class:`Reader` that reads all again for each token: any function (1, T) -> (1, T, V)."""

    def __init__(self, function: Function, length: int) -> None:
        self.length, self._function = length, function
        self._ids: list[int] = []

    def start(self, ids: Sequence[int]) -> np.ndarray:
        self._ids = list(ids)
        filled = np.full((1, self.length), PADDING, dtype=np.int32)
        filled[0, : len(ids)] = self._ids
        return self._function(filled)[0, len(ids) - 1]

    def add(self, token: int) -> np.ndarray:
        return self.start([*self._ids, token])


class Cached:
    """A :class:`Reader` that keeps the keys and values of what a GPT has read."""

    @staticmethod
    def takes(model: Any) -> bool:
        """Whether keras_nlp knows how to keep what the model has read."""
        from zoo.backend import keras_nlp

        named = [layer for layer in model.layers if layer.name == "backbone"]
        return any(isinstance(layer, keras_nlp.models.GPT2Backbone) for layer in named)

    def __init__(self, model: Any) -> None:
        from zoo.backend import keras_nlp, tf

        backbone = model.get_layer("backbone")
        reader = keras_nlp.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
        self.length = backbone.max_sequence_length
        head = backbone.hidden_dim // backbone.num_heads
        shape = (1, backbone.num_layers, 2, self.length, backbone.num_heads, head)

        @tf.function(
            input_signature=[
                tf.TensorSpec((1, None), tf.int32),
                tf.TensorSpec(shape),
                tf.TensorSpec((), tf.int32),
            ],
            autograph=False,
        )
        def step(ids: Any, cache: Any, place: Any) -> Any:
            logits, _, cache = reader.call_with_cache(ids, cache, place)
            return logits[0, -1], cache

        self._step, self._empty = step, np.zeros(shape, dtype=np.float32)
        self._place, self._cache = 0, self._empty

    def start(self, ids: Sequence[int]) -> np.ndarray:
        self._place, self._cache = 0, self._empty
        return self._read(ids)

    def add(self, token: int) -> np.ndarray:
        return self._read([token])

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        logits, self._cache = self._step(
            np.array([ids], dtype=np.int32), self._cache, np.int32(self._place)
        )
        self._place += len(ids)
        return logits.numpy()


def follow(reader: Reader, plan: text.Plan, ids: Sequence[int], choice: Choice) -> list[int]:
    """At most ``max_tokens`` ids that follow ``ids``.

    Where the model's context is full, it goes on from the later half of it.
    """
    rng = np.random.default_rng(choice.seed)
    never = [PADDING, plan["start"]]
    half = max(reader.length // 2, 1)
    known = [plan["start"], *ids]
    seen = known if len(known) <= reader.length else [plan["start"], *ids[-half:]]
    logits, place = reader.start(seen), len(seen)
    out: list[int] = []
    while True:
        allowed = np.array(logits, dtype=np.float64)
        allowed[never] = -np.inf
        out.append(choice(allowed, rng))
        if len(out) == choice.max_tokens:
            return out
        if place == reader.length:
            again = [plan["start"], *[*ids, *out][-half:]]
            logits, place = reader.start(again[: reader.length]), min(len(again), reader.length)
        else:
            logits, place = reader.add(out[-1]), place + 1


def reader_of(session: Session, variant: Variant) -> Reader:
    """A variant as a reader: with a cache where it has weights, else its artefact as it ships."""
    if (variant.path / "model.weights.h5").exists():
        model = session.of(variant).load(variant.weights)
        return Cached(model) if Cached.takes(model) else whole(model)
    return Whole(open_artifact(variant.artifact), session.plan["shape"][0])


def continued(
    session: Session, variant: Variant, prompt: str, choice: Choice
) -> tuple[list[str], int, float]:
    """What follows a prompt: the texts, how many tokens, and the seconds that these took."""
    if choice.beams > 1:
        raise ZooError(
            "Beams are for models that turn one text into another.",
            expected="no --beams, or a model for the task seq2seq",
            received=f"--beams {choice.beams}",
        )
    plan = session.plan
    ids = text.tokenizer_of(plan).cut(plan, [prompt])[0] if prompt else []
    reader = reader_of(session, variant)
    reader.start([plan["start"]])  # traced before the clock runs
    began = time.perf_counter()
    found = follow(reader, plan, list(map(int, ids)), choice)
    return [text.join(plan, found)], len(found), time.perf_counter() - began


def whole(model: Any) -> Whole:
    """A Keras model as a reader without a cache."""
    return Whole(compiled(model), model.inputs[0].shape[1])


def restored(
    session: Session, variant: Variant, prompt: str, choice: Choice
) -> tuple[list[str], int, float]:
    """What a model makes of a source text: the texts, how many tokens, the seconds.

    With ``beams`` the most probable texts that so many beams find, best first; else one text, of
    the most probable tokens where the temperature is 0.
    """
    plan = session.plan
    length, end = plan["sides"], plan["end"]
    function: Function = open_artifact(variant.artifact)
    if (variant.path / "model.weights.h5").exists():
        function = compiled(session.of(variant).load(variant.weights))
    source = text.apply(plan, [prompt])[:, :length]
    chances = _chances(function, source, plan)
    chances([[]])  # traced before the clock runs
    most = min(choice.max_tokens, length)
    began = time.perf_counter()
    if choice.beams > 1:
        found = beam_search(chances, choice.beams, most, end)
    else:
        rng = np.random.default_rng(choice.seed)
        ids: list[int] = []
        while len(ids) < most and end not in ids:
            ids.append(choice(chances([ids])[0], rng))
        found = [ids]
    seconds = time.perf_counter() - began
    return [text.join(plan, ids) for ids in found], sum(map(len, found)), seconds


def _chances(
    function: Function, source: np.ndarray, plan: text.Plan
) -> Callable[[Sequence[Sequence[int]]], np.ndarray]:
    """Answers so far, of one length -> log probabilities (n, vocabulary) of what comes next."""
    length = plan["sides"]

    def chances(answers: Sequence[Sequence[int]]) -> np.ndarray:
        place = len(answers[0])
        rows = np.full((len(answers), 2 * length), PADDING, dtype=np.int32)
        rows[:, :length], rows[:, length] = source, plan["start"]
        if place:
            rows[:, length + 1 : length + 1 + place] = answers
        logits = function(rows)[:, place].astype(np.float64)
        logits[:, [PADDING, plan["start"]]] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    return chances


def beam_search(
    chances: Callable[[Sequence[Sequence[int]]], np.ndarray], beams: int, most: int, end: int
) -> list[list[int]]:
    """The most probable answers that so many beams find, best first."""
    open_: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    for _ in range(most):
        more = chances([ids for _, ids in open_])
        scores = (np.array([score for score, _ in open_])[:, None] + more).ravel()
        best = np.argsort(-scores, kind="stable")[: 2 * beams]
        grown = [
            (float(scores[k]), [*open_[k // more.shape[1]][1], int(k % more.shape[1])])
            for k in best
            if np.isfinite(scores[k])
        ]
        done += [one for one in grown if one[1][-1] == end]
        open_ = [one for one in grown if one[1][-1] != end][:beams]
        done = sorted(done, key=lambda one: -one[0])[:beams]
        if not open_ or (len(done) == beams and done[-1][0] >= open_[0][0]):
            break
    return [ids for _, ids in sorted([*done, *open_], key=lambda one: -one[0])[:beams]]


# What `zoo predict` writes for a user's own texts --------------------------------------------------


def likelihoods(
    plan: text.Plan, inputs: Any, rows: np.ndarray, function: Function
) -> dict[str, Any]:
    """How well a causal model foresees texts: every token of each, one full context after another."""
    task, room = get_task("causal_lm"), plan["shape"][0]
    sizes, nats = np.zeros((len(rows), 2), dtype=np.int64), np.zeros(len(rows))
    assert task.judge is not None
    for k, ids in enumerate(_cut(plan, take_rows(inputs, rows))):
        for start in range(0, len(ids), room):
            window = _window(ids[start : start + room], room)
            example = task.frame(plan, window, np.zeros(1))
            found, _, loss = task.judge(function(example.x), example, plan)
            sizes[k] += found[0]
            nats[k] += loss[0] * found[0, 0]
    return {
        "tokens": sizes[:, 0],
        "characters": sizes[:, 1],
        "bits_per_character": _per(nats, sizes[:, 1]) / np.log(2),
        "perplexity": np.exp(_per(nats, sizes[:, 0])),
    }


def fillings(plan: text.Plan, inputs: Any, rows: np.ndarray, function: Function) -> dict[str, Any]:
    """Texts with each ``[MASK]`` replaced by the most probable token, all at once, and the
    pseudo-perplexity of the other tokens, each hidden in turn (Salazar et al., ACL 2020)."""
    length, mask = plan["shape"][0], plan["mask"]
    room = length - 2  # beside [CLS] and [SEP]
    told, tokens, nats = [], np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
    for k, line in enumerate(take_rows(inputs, rows)):
        parts = _cut(plan, str(line).split("[MASK]"))
        ids = parts[0] + [token for part in parts[1:] for token in (mask, *part)]
        tokens[k] = len(ids) - ids.count(mask)
        for start in range(0, len(ids), room):
            window = ids[start : start + room]
            x = _window([plan["start"], *window, plan["end"]], length)
            places = np.arange(1, 1 + len(window))
            gaps = places[x[0, places] == mask]
            if len(gaps):
                logits = function(x)[0, gaps].copy()
                logits[:, plan["special"]] = -np.inf
                x[0, gaps] = logits.argmax(axis=1)
                ids[start : start + room] = x[0, places].tolist()
            for place in np.setdiff1d(places, gaps):
                hidden = x.copy()
                hidden[0, place] = mask
                logits = function(hidden)[0, place].astype(np.float64)
                nats[k] += np.logaddexp.reduce(logits) - logits[x[0, place]]
        told.append(text.join(plan, ids))
    return {"filled": told, "tokens": tokens, "pseudo_perplexity": np.exp(_per(nats, tokens))}


def restorations(
    plan: text.Plan, inputs: Any, rows: np.ndarray, function: Function
) -> dict[str, Any]:
    """What a model makes of source texts, of the most probable tokens; ``unread`` counts the tokens
    at the end of a source for which it has no room."""
    side = plan["sides"]
    sources = _cut(plan, take_rows(inputs, rows))
    # One row's outputs at a time: they are as large as its answer times the vocabulary.
    made = [greedy(function, _window(ids[:side], 2 * side), plan)[0] for ids in sources]
    unread = [max(len(ids) - side, 0) for ids in sources]
    return {"restored": [text.join(plan, ids) for ids in made], "unread": unread}


def _cut(plan: text.Plan, texts: Iterable[Any]) -> list[list[int]]:
    """The ids of each text, without start, end and filling."""
    found = text.tokenizer_of(plan).cut(plan, [str(one) for one in texts])
    return [[int(token) for token in ids] for ids in found]


def _window(ids: Sequence[int], length: int) -> np.ndarray:
    """Ids and filling behind them: int32 (1, length)."""
    window = np.full((1, length), PADDING, dtype=np.int32)
    window[0, : len(ids)] = ids
    return window


def _per(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Totals over counts, NaN where nothing was counted."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
