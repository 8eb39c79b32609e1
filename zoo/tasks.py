"""What a task means, one row each: loss, metrics, per-sample score, and how logits become answers.

``if task ==`` belongs nowhere else: other code walks these rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import unknown
from zoo.metrics import sample_log_loss

Array = np.ndarray
Plan = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """Rows as a model takes them and as it is judged.

    ``x`` (n, ...) are its inputs, ``y`` (n, ...) what the loss compares its outputs with, and
    ``weights`` float32, None or of the shape that the loss has before its mean, how much each
    answer counts (0: not at all). ``labels`` (n, ...) are the data's own answers, in their unit.
    ``level`` (n,), where outputs are counted from something that only the row knows, is that.
    """

    x: Array
    y: Array
    labels: Array
    weights: Array | None = None
    level: Array | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    ``loss`` names a Keras loss and its arguments. ``metrics`` are names in
    :data:`zoo.metrics.METRICS`, the first being the one a target usually names; ``fairness`` those
    judged by group, ``fairness_positive`` the further ones where there is a positive class.
    ``outputs(classes)`` is the width of the model's last layer. ``decode(logits)`` gives
    ``(y_pred, scores)``: class indices with probabilities, or values. ``sample_score(y, y_pred,
    scores)`` is the per-sample error in ``score_unit`` (float64 (n,), lower is better).
    ``space`` names what attributions explain. ``classes`` tells if labels are classes.

    ``frame(plan, x, labels)`` makes an :class:`Example` of encoded inputs. ``supervised`` tells
    whether the data bring the answers; otherwise they are made from the inputs, and ``labels`` are
    zeros. A task with chance in it has ``draw(plan) -> f(x, y, weights, state)``, which TensorFlow
    runs on each training batch with the int64 (2,) state of that step, and ``settle(plan, example,
    rows)``, the draw that evaluation holds fixed, a function of the row ids (n,) alone.
    ``judge(outputs, example, plan)`` gives ``(y_true, y_pred, scores)`` of some rows where there is
    no ``decode``, as outputs say nothing without their example. ``ask(function, example, plan)``
    gives ``judge`` its outputs where it takes more than one call of the model.
    ``columns(predictions)`` are further arrays (n,) of the predictions' file. ``explained(inputs,
    outputs, plan)``, of keras.ops, gives the (n, k) outputs that attributions explain, where they
    are not the model's own, and ``explained_as`` names a single one. ``place(inputs, plan)`` int (n,)
    is where in outputs (n, places, k) the explained ones stand, and the right ones in ``Example.y``.
    ``width(config)`` is the shape of the outputs for one row. ``unit`` says what the rows of plain texts are, a row of
    :data:`zoo.data.passages.UNITS`; None where texts come as they are. ``samples`` are the rows
    that are explained unless it is said how many: a window of a language model takes as long as a
    thousand rows of a table.

    Functions elsewhere are named as ``module:function``. ``arrange(table, request)`` makes the rows of
    a loaded table that is not made of rows yet; ``reference(session)`` gives the name and the test
    predictions of the baseline beside every model; ``answers(plan, inputs, rows, function)`` the
    columns that ``zoo predict`` writes for some rows of a user's own inputs; ``shown(session, model,
    function)`` the arrays of a variant's pictures in the report; ``generate`` makes texts of a prompt.
    """

    name: str
    loss: str
    loss_args: dict[str, Any]
    metrics: tuple[str, ...]
    fairness: tuple[str, ...]
    fairness_positive: tuple[str, ...]
    outputs: Callable[[int], int]
    sample_score: Callable[[Array, Array, Any], Array]
    score_unit: str
    space: str
    classes: bool
    baseline: str
    frame: Callable[[Plan, Array, Array], Example]
    decode: Callable[[Array], tuple[Array, Any]] | None = None
    supervised: bool = True
    draw: Callable[[Plan], Callable[..., tuple[Any, Any, Any]]] | None = None
    settle: Callable[[Plan, Example, Array], Example] | None = None
    ask: Callable[[Callable[[Array], Array], Example, Plan], Any] | None = None
    judge: Callable[[Array, Example, Plan], tuple[Array, Array, Array]] | None = None
    columns: Callable[[Any], dict[str, Array]] | None = None
    explained: Callable[[Any, Any, Plan], Any] | None = None
    explained_as: str = ""
    place: Callable[[Any, Plan], Any] | None = None
    reference: str = "zoo.train.baseline:linear"
    width: Callable[[Mapping[str, Any]], tuple[int, ...]] = lambda config: (config["outputs"],)
    unit: str | None = None
    arrange: str = ""
    answers: str = ""
    shown: str = ""
    generate: str | None = None
    samples: int = 100


def function_of(name: str) -> Callable[..., Any]:
    """The function that a task's row names as ``module:function``."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def _named(name: str) -> Callable[..., Any]:
    """A function that needs TensorFlow, which this module must not: imported when it is called."""
    return lambda *arguments: function_of(name)(*arguments)


def _frame_classes(plan: Plan, x: Array, labels: Array) -> Example:
    return Example(x, labels, labels)


def _frame_column(plan: Plan, x: Array, labels: Array) -> Example:
    """One value a row, standardised where the plan says how: float32 (n, 1)."""
    y = labels
    if "target" in plan:
        y = (y - plan["target"]["mean"]) / plan["target"]["scale"]
    return Example(x, y.astype(np.float32).reshape(len(x), -1), labels)


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _decode_binary(logits: Array) -> tuple[Array, Array]:
    logit = np.asarray(logits, dtype=np.float64).reshape(len(logits))
    positive = 0.5 * (1 + np.tanh(0.5 * logit))  # the sigmoid, without overflow
    return (logit > 0).astype(np.int64), np.stack([1 - positive, positive], axis=1)


def _decode_classes(logits: Array) -> tuple[Array, Array]:
    scores = _softmax(np.asarray(logits, dtype=np.float64))
    return scores.argmax(axis=1).astype(np.int64), scores


def _decode_values(logits: Array) -> tuple[Array, None]:
    return np.asarray(logits, dtype=np.float64).reshape(len(logits)), None


#: The id of what fills short texts, in every vocabulary.
PADDING = 0


def _frame_next(plan: Plan, ids: Array, labels: Array) -> Example:
    """Each token is to be predicted from those before it: int32 (n, T), filling not counted."""
    start = np.full((len(ids), 1), plan["start"], dtype=ids.dtype)
    inputs = np.concatenate([start, ids[:, :-1]], axis=1)
    return Example(inputs, ids, labels, (ids != PADDING).astype(np.float32))


def judge_tokens(outputs: Array, example: Example, plan: Plan) -> tuple[Array, Array, Array]:
    """Logits (n, T, V) of windows: int (n, 2) tokens and characters judged, int (n,) tokens
    predicted right, float (n,) mean loss a token in nats. Tokens without weight are not judged."""
    y, weights = example.y, example.weights
    assert weights is not None
    loss, hits = np.zeros(len(y)), np.zeros(len(y), dtype=np.int64)
    for k, window in enumerate(outputs):  # one window's probabilities at a time
        judged = np.flatnonzero(weights[k])
        logits, true = window[judged], y[k, judged]
        shifted = logits - logits.max(axis=1, keepdims=True)
        chosen = np.take_along_axis(shifted, true[:, None], axis=1)[:, 0]
        total = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
        loss[k] = weights[k, judged] @ (total - chosen)
        hits[k] = weights[k, judged] @ (logits.argmax(axis=1) == true)
    tokens = weights.sum(axis=1).astype(np.int64)
    letters = (weights * np.array(plan["characters"])[y]).sum(axis=1).astype(np.int64)
    return np.stack([tokens, letters], axis=1), hits, loss / np.maximum(tokens, 1)


def _token_columns(predictions: Any) -> dict[str, Array]:
    tokens, letters = predictions.y_true.T
    return {"loss": predictions.scores, "tokens": tokens, "hits": predictions.y_pred,
            "characters": letters}  # fmt: skip


def at_place(outputs: Any, place: Any) -> Any:
    """Outputs (n, V) of one place each, from (n, places, V) and int (n,)."""
    from keras import ops

    return ops.take_along_axis(outputs, place[:, None, None], axis=1)[:, 0]


def _newest(inputs: Any, plan: Plan) -> Any:
    """Where the newest token that each window holds is predicted, from those before it."""
    from keras import ops

    held = ops.sum(ops.cast(ops.not_equal(inputs, PADDING), "int32"), axis=1)
    return ops.maximum(held - 2, 0)  # the start token moves all others by one place


#: Tokens that masked language models restore, and which share of those is hidden by ``[MASK]`` or
#: replaced by another token; the rest stays (Devlin et al., NAACL 2019, section 3.1).
HIDDEN, MASKED, REPLACED = 0.15, 0.8, 0.1
#: The share that a training step restores. More than an evaluation's: of texts this short, 15 % are four
#: tokens, and a step's gradient is mostly noise (Wettig et al., EACL 2023).
HIDDEN_IN_TRAINING = 0.3
#: Seeds, together with a row's id, the tokens that every evaluation hides of it.
SETTLED_TOKENS = 20_181_011


def _frame_masked(plan: Plan, ids: Array, labels: Array) -> Example:
    """Ids (n, T), to be hidden later, and which of them may be: no special ones."""
    allowed = ~np.isin(ids, plan["special"])
    return Example(ids, ids, labels, allowed.astype(np.float32))


def _draw_masked(plan: Plan) -> Callable[..., tuple[Any, Any, Any]]:
    """Other tokens are hidden in every step."""

    def draw(x: Any, y: Any, weights: Any, state: Any) -> tuple[Any, Any, Any]:
        import tensorflow as tf

        shape = tf.shape(x)
        chance, kind = (
            tf.random.stateless_uniform(shape, state + tf.constant([0, k], tf.int64))
            for k in (0, 1_000_003)
        )
        other = tf.random.stateless_uniform(
            shape, state + tf.constant([0, 2_000_003], tf.int64), 0, plan["vocabulary"], tf.int32
        )
        hidden = (chance < HIDDEN_IN_TRAINING) & (weights > 0)
        x = tf.where(hidden & (kind < MASKED), plan["mask"], x)
        x = tf.where(hidden & (kind >= 1 - REPLACED), other, x)
        return x, y, tf.cast(hidden, tf.float32)

    return draw


def _settle_masked(plan: Plan, example: Example, rows: Array) -> Example:
    """The tokens that are hidden of each row, always the same, at least one."""
    x, weights = example.x.copy(), np.zeros(example.x.shape, dtype=np.float32)
    assert example.weights is not None
    for k, row in enumerate(rows):
        rng = np.random.default_rng([SETTLED_TOKENS, int(row)])
        allowed = np.flatnonzero(example.weights[k])
        hidden = rng.permutation(allowed)[: max(1, round(HIDDEN * len(allowed)))]
        kind = rng.random(len(hidden))
        x[k, hidden[kind < MASKED]] = plan["mask"]
        replaced = hidden[kind >= 1 - REPLACED]
        x[k, replaced] = rng.integers(0, plan["vocabulary"], len(replaced))
        weights[k, hidden] = 1.0
    return Example(x, example.y, example.labels, weights)


def _first_mask(inputs: Any, plan: Plan) -> Any:
    """The place of the first hidden token; the first place where none is hidden."""
    from keras import ops

    return ops.argmax(ops.cast(ops.equal(inputs, plan["mask"]), "int32"), axis=1)


def _frame_pair(plan: Plan, ids: Array, labels: Array) -> Example:
    """Source and answer beside each other (n, 2 * side): the answer's tokens are to be predicted."""
    side = plan["sides"]
    answer = ids[:, side:]
    start = np.full((len(ids), 1), plan["start"], dtype=ids.dtype)
    inputs = np.concatenate([ids[:, :side], start, answer[:, :-1]], axis=1)
    return Example(inputs, answer, labels, (answer != PADDING).astype(np.float32))


def greedy(function: Callable[[Array], Array], x: Array, plan: Plan) -> Array:
    """The most probable next token, again and again: sources in x (n, 2 * side) -> int32 (n, side).

    Each call of the function tells what would follow at every place of a guessed answer. The source
    itself is the first guess, and what is told the next one: where it stays the same it is what one
    token after the other would give, after far fewer calls (Santilli et al., ACL 2023).
    """
    side = plan["sides"]
    guess = x[:, :side].copy()
    left = np.arange(len(x))
    for _ in range(side + 1):
        inputs = x[left].copy()
        inputs[:, side] = plan["start"]
        inputs[:, side + 1 :] = guess[left, :-1]
        logits = function(inputs).copy()
        logits[..., [PADDING, plan["start"]]] = -np.inf
        told = logits.argmax(axis=2).astype(np.int32)
        ended = np.cumsum(told == plan["end"], axis=1) - (told == plan["end"]) > 0
        told[ended] = PADDING
        moved = (told != guess[left]).any(axis=1)
        guess[left] = told
        left = left[moved]
        if not len(left):
            break
    return guess


def _ask_pair(function: Callable[[Array], Array], example: Example, plan: Plan) -> Any:
    return function(example.x), greedy(function, example.x, plan)


def edits(one: Array, other: Array) -> int:
    """The fewest insertions, deletions and replacements that make one list another."""
    before = list(range(len(other) + 1))
    for k, left in enumerate(one, start=1):
        row = [k]
        for j, right in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right)))
        before = row
    return before[-1]


def _judge_pair(outputs: Any, example: Example, plan: Plan) -> tuple[Array, Array, Array]:
    """As :func:`judge_tokens`, with int (n, 3): tokens right, characters off, and whether none is."""
    logits, made = outputs
    sizes, hits, loss = judge_tokens(logits, example, plan)
    special = [PADDING, plan["start"], plan["end"]]
    off = np.array([
        edits(*(row[~np.isin(row, special)].tolist() for row in pair))
        for pair in zip(made, example.y, strict=True)
    ], dtype=np.int64)  # fmt: skip
    return sizes, np.stack([hits, off, off == 0], axis=1), loss


def _pair_columns(predictions: Any) -> dict[str, Array]:
    tokens, letters = predictions.y_true.T
    hits, off, exact = predictions.y_pred.T
    return {"loss": predictions.scores, "tokens": tokens, "hits": hits, "characters": letters,
            "edits": off, "exact": exact}  # fmt: skip


def _first_damage(inputs: Any, plan: Plan) -> Any:
    """The place of the first letter that the answer has and the source has not at its place."""
    from keras import ops

    side = plan["sides"]
    differs = ops.not_equal(inputs[:, : side - 1], inputs[:, side + 1 :])
    return ops.argmax(ops.cast(differs, "int32"), axis=1)


def _per_answer(config: Mapping[str, Any]) -> tuple[int, ...]:
    return (config["shape"][0] // 2, config["vocabulary"])


def _per_token(config: Mapping[str, Any]) -> tuple[int, ...]:
    return (config["shape"][0], config["vocabulary"])


def _own_scores(y: Array, p: Array, s: Array) -> Array:
    return np.asarray(s, np.float64)


def _frame_series(plan: Plan, x: Array, labels: Array) -> Example:
    """Windows (n, length) as distances from their newest value, in units of the seasonal change.

    So a model never sees the level of a series, which leaves any range that training knew.
    """
    level, scale = x[:, -1], plan["target"]["scale"]
    ahead, past = ((part - level[:, None]) / scale for part in (labels, x))
    return Example(past.astype(np.float32), ahead.astype(np.float32), labels, level=level)


def _judge_series(outputs: Array, example: Example, plan: Plan) -> tuple[Array, Array, Array]:
    """Truth and forecast (n, horizon) in the series' unit, and the MASE of each window (n,)."""
    assert example.level is not None
    scale = plan["target"]["scale"]
    forecast = np.asarray(outputs, np.float64) * scale + example.level[:, None]
    return example.labels, forecast, np.abs(example.labels - forecast).mean(axis=1) / scale


#: Seeds, together with a row's id, the binary picture that every evaluation sees of it.
SETTLED = 20_130_220


def _frame_picture(plan: Plan, x: Array, labels: Array) -> Example:
    """Pictures in [0, 1] as their own answers: (n, h, w, c) and flat (n, pixels)."""
    return Example(x, x.reshape(len(x), -1), labels)


def _settle_binary(plan: Plan, example: Example, rows: Array) -> Example:
    """One such draw for each row id, always the same."""
    bits = np.empty(example.x.shape, dtype=np.float32)
    for k, row in enumerate(rows):
        drawn = np.random.default_rng([SETTLED, int(row)]).random(bits.shape[1:], np.float32)
        bits[k] = drawn < example.x[k]
    return Example(bits, bits.reshape(len(bits), -1), example.labels)


def latent_parts(outputs: Any, pixels: int) -> tuple[Any, Any, Any]:
    """``(logits (n, pixels), means (n, latents), log variances (n, latents))`` of a VAE's output."""
    latents = (outputs.shape[-1] - pixels) // 2
    ends = pixels, pixels + latents
    return outputs[:, : ends[0]], outputs[:, ends[0] : ends[1]], outputs[:, ends[1] :]


def bernoulli_nats(logits: Array, bits: Array) -> Array:
    """Negative log-likelihood of bits (n, pixels) under independent logits: float64 (n,)."""
    logits = np.asarray(logits, np.float64)
    return (np.logaddexp(0.0, logits) - bits * logits).sum(axis=1)


def gaussian_nats(mean: Array, log_variance: Array) -> Array:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1), summed: (n, k) -> (n,).

    Kingma & Welling, ICLR 2014, appendix B.
    """
    mean, log_variance = np.asarray(mean, np.float64), np.asarray(log_variance, np.float64)
    return 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)


def _judge_generative(outputs: Array, example: Example, plan: Plan) -> tuple[Array, Array, Array]:
    """Pixels that are on, and how many the reconstruction expects; minus the ELBO, nats: each (n,)."""
    logits, mean, log_variance = latent_parts(outputs, example.y.shape[1])
    nats = bernoulli_nats(logits, example.y) + gaussian_nats(mean, log_variance)
    expected = 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))
    return example.y.sum(axis=1, dtype=np.float64), expected.sum(axis=1), nats


_CLASS_METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro",
                  "roc_auc", "average_precision", "log_loss", "brier", "ece")  # fmt: skip
_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate", "true_negative_rate",
          "false_negative_rate", "precision")  # fmt: skip


def _language(**row: Any) -> Task:
    """A row of what language models have in common."""
    place = row["place"]
    common = {
        "explained": lambda inputs, outputs, plan: at_place(outputs, place(inputs, plan)),
        "loss": "SparseCategoricalCrossentropy",
        "loss_args": {"from_logits": True},
        "fairness_positive": (),
        "outputs": lambda classes: 0,
        "sample_score": _own_scores,
        "score_unit": "nats a token",
        "space": "logit",
        "classes": False,
        "supervised": False,
        "judge": judge_tokens,
        "columns": _token_columns,
        "width": _per_token,
        "samples": 12,
    }
    return Task(**{**common, **row})


TASKS: dict[str, Task] = {
    row.name: row
    for row in (
        Task(
            name="binary",
            loss="BinaryCrossentropy",
            loss_args={"from_logits": True},
            metrics=_CLASS_METRICS,
            fairness=("accuracy", "balanced_accuracy", "f1_macro", "log_loss"),
            fairness_positive=_RATES,
            outputs=lambda classes: 1,
            decode=_decode_binary,
            sample_score=lambda y, p, s: sample_log_loss(y, s),
            score_unit="nats",
            space="logit",
            classes=True,
            baseline="logistic regression",
            frame=_frame_column,
        ),
        Task(
            name="multiclass",
            loss="SparseCategoricalCrossentropy",
            loss_args={"from_logits": True},
            metrics=_CLASS_METRICS,
            fairness=("accuracy", "balanced_accuracy", "f1_macro", "log_loss"),
            fairness_positive=_RATES,
            outputs=lambda classes: classes,
            decode=_decode_classes,
            sample_score=lambda y, p, s: sample_log_loss(y, s),
            score_unit="nats",
            space="logit",
            classes=True,
            baseline="logistic regression",
            frame=_frame_classes,
        ),
        Task(
            name="regression",
            loss="MeanSquaredError",
            loss_args={},
            metrics=("rmse", "mse", "mae", "r2"),
            fairness=("mae", "rmse", "mean_prediction"),
            fairness_positive=(),
            outputs=lambda classes: 1,
            decode=_decode_values,
            sample_score=lambda y, p, s: np.abs(np.asarray(y, np.float64) - p),
            score_unit="target units",
            space="value",
            classes=False,
            baseline="ridge regression",
            frame=_frame_column,
        ),
        _language(
            name="causal_lm",
            metrics=("bits_per_character", "perplexity", "token_accuracy", "token_loss"),
            fairness=("token_loss", "bits_per_character", "token_accuracy"),
            baseline="interpolated trigrams of tokens",
            frame=_frame_next,
            place=_newest,
            reference="zoo.train.ngrams:next_token",
            unit="passage",
            answers="zoo.generate:likelihoods",
            generate="zoo.generate:continued",
        ),
        _language(
            name="seq2seq",
            metrics=("character_error_rate", "exact_match", "token_accuracy", "perplexity",
                     "token_loss"),
            fairness=("token_loss", "character_error_rate", "exact_match", "token_accuracy"),
            baseline="the input as it is",
            frame=_frame_pair,
            ask=_ask_pair,
            judge=_judge_pair,
            columns=_pair_columns,
            place=_first_damage,
            reference="zoo.train.ngrams:copied",
            width=_per_answer,
            unit="damaged line",
            answers="zoo.generate:restorations",
            generate="zoo.generate:restored",
        ),
        _language(
            name="masked_lm",
            metrics=("perplexity", "token_accuracy", "token_loss"),
            fairness=("token_loss", "token_accuracy"),
            baseline="how frequent each token is",
            frame=_frame_masked,
            draw=_draw_masked,
            settle=_settle_masked,
            place=_first_mask,
            reference="zoo.train.ngrams:frequencies",
            unit="passage",
            answers="zoo.generate:fillings",
        ),
        Task(
            name="forecasting",
            loss="MeanAbsoluteError",
            loss_args={},
            metrics=("mase", "mae", "rmse", "smape"),
            fairness=("mase", "mae", "rmse"),
            fairness_positive=(),
            outputs=lambda classes: 1,
            sample_score=_own_scores,
            score_unit="seasonal changes",
            space="value",
            classes=False,
            baseline="seasonal naive with drift",
            frame=_frame_series,
            judge=_judge_series,
            explained=_named("zoo.train.pictures:mean_change"),
            explained_as="mean change over the horizon",
            arrange="zoo.data.series:arrange",
            reference="zoo.train.baseline:seasonal",
            answers="zoo.data.series:answers",
            shown="zoo.train.pictures:forecasts",
        ),
        Task(
            name="generative",
            loss="NegativeElbo",
            loss_args={},
            metrics=("elbo",),
            fairness=("elbo",),
            fairness_positive=(),
            outputs=lambda classes: 0,
            sample_score=_own_scores,
            score_unit="nats",
            space="nats",
            classes=False,
            baseline="independent pixels",
            frame=_frame_picture,
            supervised=False,
            draw=_named("zoo.train.augment:binary"),
            settle=_settle_binary,
            judge=_judge_generative,
            explained=_named("zoo.train.pictures:code_nats"),
            explained_as="nats of the latent code",
            width=lambda config: (int(np.prod(config["shape"])) + 2 * config["latents"],),
            reference="zoo.train.baseline:pixels",
            answers="zoo.train.pictures:picture_answers",
            shown="zoo.train.pictures:generated",
        ),
    )
}  # fmt: skip


def get_task(name: str) -> Task:
    """The row of a task. Raises :class:`zoo.errors.ZooError` for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
