"""Attributions of variants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import Interrupted, ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Variant, find_run, write_arrays

if TYPE_CHECKING:
    import numpy as np

    from zoo.tasks import Task
    from zoo.train.session import Session

EXPLAIN_BACKGROUND, DRIFT_BACKGROUND = 50, 20
PATCHES = 7  # an image is shared out among about this many patches a side
EXEMPLARS = 6
#: Rows that drift compares, each explained as a black box: fewer where there are many features.
DRIFT_ROWS, FEWEST_DRIFT, MOST_DRIFT = 500, 8, 40
#: Drift shares the output for a longer text out among at most so many stretches of it, and asks the
#: artefact at most so often for a row: a language model's answer takes milliseconds.
DRIFT_STRETCHES, STRETCHES_BUDGET = 24, 500
OCCURRENCES = 3  # of a word among the explained rows, for its importance to say something


def explain(
    text: str,
    *,
    variant: str = BASE,
    method: str | None = None,
    samples: int | None = None,
    background: int = EXPLAIN_BACKGROUND,
    split: str = "test",
    quality: bool = True,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Attributions of variants: ``explain.json`` and ``explain.npz`` beside each.

    The arrays of another method than the router's are in ``explain-METHOD.npz``, and those of
    another split than the test rows in ``explain-SPLIT.npz`` or ``explain-METHOD-SPLIT.npz``.
    """
    from zoo.schema import ExplainResult
    from zoo.train.running import reopen
    from zoo_explain.attribution import find_method

    if method is not None:
        find_method(method)  # a typo shall not wait for the model
    run = find_run(text, root)
    chosen = run.select(variant)
    session = reopen(run)
    results = []
    for item in chosen:
        progress.say(f"{item.name}: explaining")
        try:
            result, _ = explain_one(
                session, item, method, samples, background, split, quality=quality
            )
        except ZooError as error:
            if isinstance(error, Interrupted) or len(chosen) == 1:
                raise
            result = ExplainResult(
                variant=item.name, method=method, why_method="", space="", split=split,
                error=error.brief,
            ).model_dump(mode="json")  # fmt: skip
        if result["note"]:
            progress.say(f"{item.name}: {result['note']}")
        results.append(result)
    return {"run": str(run.path), "results": results}


def explain_one(
    session: Session,
    variant: Variant,
    method: str | None,
    samples: int | None,
    background: int,
    split: str,
    *,
    quality: bool = True,
    targets: Any = None,
    most: int | None = None,
    budget: int | None = None,
    modest: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Explain one variant and store it: the result and its arrays; ``most`` as for :func:`players_of`.

    ``budget``: calls of the artefact for a row, where the method samples; None for the method's own.
    ``modest``: an explanation by the same method, of the same artefact and of more rows, stays.
    """
    import dataclasses

    import numpy as np

    from zoo.predict import open_artifact
    from zoo.schema import ExplainResult
    from zoo.tasks import get_task
    from zoo_explain import attribution

    data, plan = session.data, session.plan
    rng = np.random.default_rng(0)  # the same rows for every variant and every method
    task = get_task(data.task)
    count = task.samples if samples is None else samples
    rows = rng.permutation(data.parts[split])[:count]  # fewer samples are the first of more
    behind = rng.permutation(data.parts["train"])[:background]
    x = session.encoded(rows)
    names = _outputs_of(session)
    own = (variant.path / "model.weights.h5").exists()
    model = session.of(variant).load(variant.weights) if own else None
    players = players_of(plan, most)
    coarse = len(players) < len(players_of(plan))
    artifact = open_artifact(variant.artifact)
    arguments: dict[str, Any] = {
        "predict": _of_outputs(task, plan, artifact),
        "of_row": _of_row(task, plan, artifact),
        "model": None if model is None else _of_model(task, plan, model),
        "x": x,
        "background": session.encoded(behind),
        "players": players,
        **({} if budget is None else {"budget": budget}),
    }
    found = attribution.explain(
        **arguments, space=task.space, outputs=names, method=method, targets=targets
    )
    measured = attribution.quality(found, **arguments) if quality else {}
    scale, shift = 1.0, 0.0
    if "target" in plan:
        scale, shift = plan["target"]["scale"], plan["target"]["mean"]
    found = dataclasses.replace(
        found,
        values=found.values * scale,
        base=found.base * scale + shift,
        output=found.output * scale + shift,
        dense=None if found.dense is None else found.dense * scale,
        features=[{**f, "importance": f["importance"] * scale} for f in found.features],
    )
    if plan["kind"] == "text" and not coarse:
        found = dataclasses.replace(found, features=words_of(plan, x, found.values[..., 0]))
    notes = [
        f"the {of} split has {len(drawn):,} of the {asked:,} {what} rows asked for"
        for of, drawn, asked, what in (
            (split, rows, count, "explained"),
            ("train", behind, background, "background"),
        )
        if len(drawn) < asked and (what == "background" or samples is not None)
    ]
    if coarse:
        notes.append(f"the output is shared out among {len(players)} stretches of the input, of up "
                     f"to {max(len(player.index) for player in players)} tokens each")  # fmt: skip
    notes += [found.note] if found.note else []
    document = found.document() | {
        "artifact_gap": found.artifact_gap,
        "note": "; ".join(notes) or None,
    }
    result = ExplainResult(
        **{
            **document,
            **variant.bound(variant.artifact),
            "variant": variant.name,
            "split": split,
            "artifact": variant.artifact.name,
            "output_names": names,
            "quality": measured,
        }
    ).model_dump(mode="json")
    spent = np.array(arguments.get("budget", attribution.BUDGET))
    arrays = found.arrays() | {"row": rows, "background": behind, "budget": spent}
    if found.dense is not None and plan["kind"] != "image":
        arrays.pop("dense")  # the players' values say it; single codes are no user's feature
    arrays |= _pictures(session, variant, rows, found, split, names)
    if coarse:
        arrays.pop("words", None)  # no value is a single word's
    default, _ = attribution.route(arguments["model"], len(players))
    words = ["explain", *([found.method] if found.method != default else [])]
    file = "-".join([*words, *([split] if split != "test" else [])]) + ".npz"
    if not (modest and _larger(variant, result)):
        write_arrays(variant.path / file, arrays)
        variant.upsert("explain.json", [result], key=("method", "split"))
    return result, arrays


def _larger(variant: Variant, result: Mapping[str, Any]) -> bool:
    """Whether an explanation of more rows is stored in a result's place."""
    return any(
        (old["method"], old["split"]) == (result["method"], result["split"])
        and old["inputs"] == result["inputs"]
        and (old["samples"] or 0) > result["samples"]
        for old in variant.results("explain.json")
    )


def _outputs_of(session: Session) -> list[str]:
    """Names of the outputs that are explained."""
    from zoo.data.text import readable
    from zoo.tasks import get_task

    data, task = session.data, get_task(session.data.task)
    if task.explained is not None and session.plan["kind"] == "text":
        return readable(session.plan)
    if task.explained_as:
        return [task.explained_as]
    names = list(data.classes) or [data.target]
    # the logit of a binary model is that of its second class
    return names[-1:] if task.outputs(len(names)) == 1 else names


def _of_outputs(task: Task, plan: Mapping[str, Any], function: Any) -> Any:
    """An artefact as the function of inputs that attributions explain."""
    if task.explained is None:
        return function
    import numpy as np

    explained = task.explained
    return lambda x: np.asarray(explained(x, function(x), plan))


def _of_row(task: Task, plan: Mapping[str, Any], function: Any) -> Any:
    """The same for the game of one row (*shape): any input is asked about that row's place."""
    if task.place is None:
        return None
    import numpy as np

    look = task.place

    def of_row(row: np.ndarray) -> Any:
        place = int(np.asarray(look(row[None], plan))[0])
        return lambda x: function(x)[:, place]

    return of_row


def _of_model(task: Task, plan: Mapping[str, Any], model: Any) -> Any:
    """A Keras model with the outputs that attributions explain."""
    from zoo.backend import keras

    if task.explained is None:
        return model
    (inputs,), (outputs,) = model.inputs, model.outputs
    return keras.Model(inputs, task.explained(inputs, outputs, plan), name=model.name)


def players_of(plan: Mapping[str, Any], most: int | None = None) -> list[Any]:
    """Who shares out the output: columns, stretches of the past, patches or tokens.

    Of a text with more than ``most`` tokens, ``most`` or fewer stretches of neighbouring ones, all
    but the last of one length. A stretch gets what its tokens do together: the values are those of
    the game among the stretches (a coalition structure's quotient game, Owen 1977).
    """
    from zoo_explain.attribution import columns_to_players, patches

    if plan["kind"] == "tabular":
        return columns_to_players((c["name"], c["start"], c["stop"]) for c in plan["columns"])
    if plan["kind"] == "series":
        from zoo.data.series import players

        return columns_to_players(players(plan))
    if plan["kind"] == "text":
        (length,) = plan["shape"]
        step = 1 if most is None else -(-length // most)
        starts = range(0, length, step)
        return columns_to_players(
            (_tokens(k + 1, min(k + step, length)), k, min(k + step, length)) for k in starts
        )
    return patches(tuple(plan["shape"]), max(1, round(max(plan["shape"][:2]) / PATCHES)))


def _tokens(first: int, last: int) -> str:
    return f"token {first}" if first == last else f"tokens {first} to {last}"


def drift_effort(plan: Mapping[str, Any]) -> dict[str, Any]:
    """How drift explains base and every variant, as black boxes: arguments of :func:`explain_one`."""
    fine, coarse = len(players_of(plan)), len(players_of(plan, DRIFT_STRETCHES))
    return {
        "samples": min(max(DRIFT_ROWS // fine, FEWEST_DRIFT), MOST_DRIFT),
        "background": DRIFT_BACKGROUND,
        "split": "test",
        "most": DRIFT_STRETCHES,
        "budget": STRETCHES_BUDGET if coarse < fine else None,
    }


def words_of(plan: Mapping[str, Any], ids: Any, values: Any) -> list[dict[str, Any]]:
    """What single words did, wherever they stood: ``{name, importance}``, the largest first.

    Args:
        ids: int32 (n, length). values: float64 (n, length).
    Importance is the mean ``|value|`` of a word's occurrences, of words with at least
    :data:`OCCURRENCES`; the filling of short texts is a word of its own.
    """
    import numpy as np

    from zoo.data.text import decode

    distinct, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.bincount(place.ravel(), np.abs(values).ravel())
    often = np.flatnonzero(counts >= min(OCCURRENCES, counts.max()))
    often = often[np.argsort(-sums[often] / counts[often], kind="stable")]
    names = decode(plan, distinct[often])
    return [
        {"name": str(name), "importance": float(sums[k] / counts[k])}
        for name, k in zip(names, often, strict=True)
    ]


def _ranks(x: np.ndarray, players: list[Any]) -> np.ndarray:
    """Each player's mean input as its rank among the rows, 0 to 1: (n, length) -> (n, players)."""
    import numpy as np
    from scipy.stats import rankdata

    means = np.stack([x[:, player.index].mean(axis=1) for player in players], axis=1)
    return (rankdata(means, axis=0) - 1) / max(len(x) - 1, 1)


def _pictures(
    session: Session, variant: Variant, rows: Any, found: Any, split: str, names: list[str]
) -> dict[str, Any]:
    """What plots need beside the values: colours for numbers, or exemplar pictures."""
    import numpy as np

    from zoo.data.images import resize
    from zoo.data.preprocess import display_values
    from zoo.data.text import decode
    from zoo.predict import open_artifact, predict_rows
    from zoo.tasks import get_task
    from zoo.variants import decided

    data, kind = session.data, session.plan["kind"]
    if kind == "tabular":
        return {"display": display_values(session.plan, data.take(rows))}
    if kind == "series":
        return {"display": _ranks(session.encoded(rows), players_of(session.plan))}
    chosen = np.arange(len(rows))[:EXEMPLARS]
    task = get_task(data.task)
    if task.place is not None:
        text, example = np.array(names), session.example(rows[chosen])
        answers = {
            "truth": text[example.y[chosen, np.asarray(task.place(example.x, session.plan))]],
            "predicted": text[found.targets[chosen]],
        }
        return {"words": decode(session.plan, session.encoded(rows)), **answers}
    said = predict_rows(session, open_artifact(variant.artifact), split, rows[chosen])
    said = decided(said, variant.decision())
    name = np.array(data.classes) if data.classes else None
    show = (
        (lambda v: name[v]) if name is not None else (lambda v: np.array([f"{x:.3g}" for x in v]))
    )
    answers = {"truth": show(said.y_true), "predicted": show(said.y_pred)}
    if (
        kind == "image" and not task.supervised
    ):  # nothing is true of a row: what the explained output is stands there
        told = [f"{value:.3g} {task.score_unit}" for value in found.output[chosen, 0]]
        answers = {"truth": np.full(len(chosen), ""), "predicted": np.array(told)}
    if kind == "text":
        return {"words": decode(session.plan, session.encoded(rows)), **answers}
    images, (height, width) = data.take(rows[chosen]), session.plan["shape"][:2]
    if images.shape[1:3] != (height, width):  # of an array; files are decoded to the model's size
        images = resize(images, height, width)
    pictures = {"images": images, **answers}
    dense = found.dense
    if dense is None:  # a black box: each patch's value, spread over its pixels
        shape = (len(rows), *session.plan["shape"])
        painted = np.zeros((len(rows), int(np.prod(shape[1:]))))
        for k, player in enumerate(players_of(session.plan)):
            painted[:, player.index] = found.values[:, k] / len(player.index)
        dense = painted.reshape(*shape, 1)
    pictures["dense"] = np.asarray(dense[chosen], dtype=np.float32)
    return pictures
