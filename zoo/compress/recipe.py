"""Recipes: ``step(+step)*`` with ``step = name[:arg]``, from text to variants."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from zoo.compress.steps import STEPS, Work
from zoo.errors import NOT_APPLICABLE, ZooError, unknown
from zoo.progress import Progress
from zoo.run import BASE, Run, Variant, check_name, exists_already, hash_of, workshop
from zoo.spec import ModelSpec, Step
from zoo.train.session import Session
from zoo.variants import ship


@dataclass(frozen=True)
class Parsed:
    """One step of a recipe with its options."""

    text: str
    step: Step
    options: tuple[tuple[str, Any], ...]


def parse(recipe: str) -> list[Parsed]:
    """The steps of a recipe. Raises :class:`ZooError` for what is unknown or out of order."""
    parsed = []
    for text in recipe.strip().split("+"):
        name, colon, argument = (part.strip() for part in text.partition(":"))
        if name not in STEPS:
            raise unknown(
                "recipe",
                name,
                STEPS,
                hint="A recipe is step(+step)*; `zoo compress --help` explains the steps.",
            )
        step = STEPS[name]
        try:
            options = step.parse(argument if colon else None)
        except ValueError as error:
            raise ZooError(
                f"The step {text!r} of recipe {recipe!r} has a wrong argument.",
                expected=str(error),
                received=repr(argument),
                kind="bad_recipe",
            ) from error
        parsed.append(Parsed(f"{name}{colon}{argument}", step, tuple(options.items())))
    order = list(STEPS)
    for before, after in itertools.pairwise(parsed):
        twice = after.step.name == before.step.name and not after.step.again
        if not twice and before.step.kind == "transform" and not after.step.decides:
            raise ZooError(
                f"In recipe {recipe!r}, {after.text!r} can't follow {before.text!r}.",
                expected=f"{before.text!r} as the last step: it "
                + (
                    "decides on a finished model's outputs"
                    if before.step.decides
                    else "converts the weights for good"
                ),
                received=recipe,
                hint=f"Two variants, {before.text} and {after.text}, can stand side by side."
                if after.step.kind == "transform" and not before.step.decides
                else f"{after.text}+{before.text}",
                kind="bad_recipe",
            )
        if order.index(after.step.name) < order.index(before.step.name):
            raise ZooError(
                f"In recipe {recipe!r}, {after.text!r} would undo {before.text!r}.",
                expected=f"steps in this order: {', '.join(order)}",
                received=recipe,
                hint=f"{after.text}+{before.text}",
                kind="bad_recipe",
            )
        if twice:
            raise ZooError(
                f"In recipe {recipe!r}, {after.text!r} would undo {before.text!r}.",
                expected=f"{after.step.name!r} once",
                received=recipe,
                hint=after.text,
                kind="bad_recipe",
            )
    check_name(slug([part.text for part in parsed]), "recipe")  # it will be a folder's name
    return parsed


def slug(texts: list[str]) -> str:
    """The folder's name of a recipe, for humans: ``prune:0.8+int8`` -> ``prune-0.8_int8``.

    A hash tells a user's own name, of an attribute, from others that look alike in it.
    """
    parts = []
    for text in texts:
        name, *rest = text.split(":")
        if STEPS[name].mitigates and not re.fullmatch(r"[A-Za-z0-9.]{1,40}", rest[0]):
            plain = re.sub(r"[^A-Za-z0-9.]", "-", unquote(rest[0]))[:40]
            rest[0] = f"{plain}-{hash_of(rest[0])[:6]}"
        parts.append("-".join([name, *rest]))
    return "_".join(parts)


def check(session: Session, run: Run, steps: Sequence[Parsed], parent: str = BASE) -> None:
    """Raise :class:`ZooError` for all that can be refused of steps from a variant on before any work."""
    origin = run.variant(parent)
    made = _made(origin)
    session = session.of(origin)
    current: Variant | None = origin
    applies(steps, session.spec)
    for parsed in steps:
        options = dict(parsed.options)
        if parsed.step.check is not None:
            parsed.step.check(session, options)
        session = session.as_model(options["model"]) if "model" in options else session
        made.append(parsed.text)
        current = None if current is None else _there(run, current, slug(made), "+".join(made))


def following(origin: Variant, recipe: str) -> list[Parsed]:
    """The steps of a recipe after those that a variant was made by.

    Raises :class:`ZooError` where they can't follow.
    """
    made = _made(origin)
    converted = made and not (origin.path / "model.weights.h5").exists()
    if converted and not parse(recipe)[0].step.decides:
        why = "decides by group" if origin.document()["needs_groups"] else "is converted for good"
        raise ZooError(
            f"Variant {origin.name!r} {why} and can't be trained or converted further.",
            expected="base, or a variant that was retrained",
            received=origin.name,
            hint=f"zoo compress {origin.run.path} '{recipe}' --variant base",
            kind=NOT_APPLICABLE,
        )
    return chain(origin, recipe)[len(made) :]


def applies(steps: Sequence[Parsed], spec: ModelSpec) -> None:
    """Raise :class:`ZooError` where a model's spec says that a step does not apply to it."""
    from zoo.registry import models

    for parsed in steps:
        reason = spec.skips.get(parsed.step.name)
        if reason:
            raise ZooError(
                f"{parsed.step.name!r} does not apply to {spec.name!r}: {reason}.",
                expected="a step that its spec does not skip",
                received=parsed.text,
                kind=NOT_APPLICABLE,
            )
        student = dict(parsed.options).get("model")
        spec = models().get(student) if student else spec


def chain(origin: Variant, recipe: str) -> list[Parsed]:
    """All steps of what a recipe makes of a variant, those that it was made by before."""
    return parse("+".join([*_made(origin), *(parsed.text for parsed in parse(recipe))]))


def compress(
    session: Session, run: Run, steps: Sequence[Parsed], progress: Progress, parent: str = BASE
) -> Variant:
    """Make the variant of steps that passed :func:`check`; intermediates are variants, and reused."""
    current = run.variant(parent)
    before = _made(current)
    for parsed in steps:
        before.append(parsed.text)
        session = session.of(current)
        current = _one(session, run, current, parsed, "+".join(before), slug(before), progress)
    return current


def _made(variant: Variant) -> list[str]:
    """The steps that a variant was made by."""
    return [part for part in variant.document()["recipe"].split("+") if part]


def _there(run: Run, parent: Variant, name: str, recipe: str) -> Variant | None:
    """The variant of a name, if it is made. Raises :class:`ZooError` for what is in its way."""
    if name not in run.variants():
        if (run.path / name).exists():
            raise exists_already(run.path / name)
        return None
    found = run.variant(name)
    document = found.document()
    if document["recipe"] != recipe:
        raise ZooError(
            f"Variant {name!r} was made by another recipe.",
            expected=recipe,
            received=document["recipe"],
            hint=f"Remove the folder {found.path} and make it again.",
            kind="stale_variant",
        )
    if document["parent"]["sha256"] != parent.sha256:
        raise ZooError(
            f"Variant {name!r} was made from another {parent.name!r} than there is now.",
            expected=f"a variant made from {parent.sha256[:16]}...",
            received=f"one made from {document['parent']['sha256'][:16]}...",
            hint=f"Remove the folder {found.path} and make it again.",
            kind="stale_variant",
        )
    return found


def _one(
    session: Session,
    run: Run,
    parent: Variant,
    parsed: Parsed,
    recipe: str,
    name: str,
    progress: Progress,
) -> Variant:
    from zoo.export import to_litert

    found = _there(run, parent, name, recipe)
    if found is not None:
        found.artifact  # noqa: B018 - raises where the file is not the one that was made
        progress.say(f"{name}: there already")
        return found
    progress.say(f"{name}: {parsed.step.help}")
    if parsed.step.decides:
        return parsed.step.run(session, parent, name, recipe, dict(parsed.options))
    began = time.perf_counter()
    retrained = parsed.step.kind == "retrain"
    with workshop(run, name, parent, recipe) if retrained else nullcontext(run.path) as folder:
        work = Work(session, session.load(parent.weights), progress, name, folder, run)
        content = parsed.step.run(work, dict(parsed.options))
        return ship(
            work.session,
            run,
            name,
            recipe=recipe,
            kind=parsed.step.kind,
            model=work.model,
            content=to_litert(work.model) if retrained else content,
            parent=parent,
            own_weights=retrained,
            options=dict(parsed.options),
            seconds=time.perf_counter() - began,
            file=parsed.step.artifact,
        )
