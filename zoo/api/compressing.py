"""Making compressed variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, NOT_APPLICABLE, Interrupted, ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, find_run

if TYPE_CHECKING:
    from zoo.compress.recipe import Parsed
    from zoo.train.session import Session


def compress(
    text: str,
    recipes: Sequence[str],
    *,
    variant: str = BASE,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Make the variants of recipes. A recipe that fails is a row with its ``error``."""
    run = find_run(text, root)
    session, planned = opened(run, recipes, variant)
    return {"run": str(run.path), "results": compress_all(session, run, planned, variant, progress)}


def opened(
    run: Run, recipes: Sequence[str], parent: str = BASE
) -> tuple[Session, list[tuple[str, list[Parsed]]]]:
    """The session of a run, and the steps of each recipe that is to be made of it.

    What one of them lacks must not cost the work on the others, and a typo need not wait until the
    data are read. Raises :class:`ZooError` for all that can be refused before any work.
    """
    from zoo.compress.recipe import check, following
    from zoo.train.running import reopen

    origin = run.variant(parent)
    planned = [(recipe, following(origin, recipe)) for recipe in recipes]
    session = reopen(run)
    for _, steps in planned:
        check(session, run, steps, parent)
    return session, planned


def opened_where_applicable(
    run: Run, recipes: Sequence[str], parent: str, progress: Progress
) -> tuple[Session, list[tuple[str, list[Parsed]]], list[ZooError]]:
    """As :func:`opened`, of those recipes that apply to the model and its data.

    Of each other one it is said that it is left out and why; the reasons come last.
    """
    from zoo.compress.recipe import check, following
    from zoo.train.running import reopen

    origin, session = run.variant(parent), reopen(run)
    planned, reasons = [], []
    for recipe in recipes:
        try:
            steps = following(origin, recipe)
            check(session, run, steps, parent)
        except ZooError as error:
            if error.kind not in (
                NOT_APPLICABLE,
                "bad_recipe",
            ):  # one that would undo what was made
                raise
            progress.say(f"{recipe}: left out: {error.message}")
            reasons.append(error)
        else:
            planned.append((recipe, steps))
    return session, planned, reasons


def compress_all(
    session: Session,
    run: Run,
    planned: Sequence[tuple[str, list[Parsed]]],
    parent: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The rows of the variants that :func:`opened` planned; one that fails has its ``error``."""
    from zoo.backend import tf
    from zoo.compress.recipe import compress as make

    results = []
    for recipe, steps in planned:
        try:
            results.append(make(session, run, steps, progress, parent).document())
        except Interrupted:
            raise
        except ZooError as error:
            if error.exit_code != FAILURE and len(planned) == 1:
                raise
            results.append(_failed_row(run, parent, recipe, error.brief))
        except (RuntimeError, ValueError, tf.errors.OpError) as error:  # a converter that gives up
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            results.append(_failed_row(run, parent, recipe, reason))
    return results


def _failed_row(run: Run, parent: str, recipe: str, error: str) -> dict[str, Any]:
    from zoo.compress.recipe import chain, slug
    from zoo.schema import VariantDocument

    steps = chain(run.variant(parent), recipe)
    row = VariantDocument(
        variant=slug([part.text for part in steps]),
        recipe="+".join(part.text for part in steps),
        kind=steps[-1].step.kind,
        error=error,
    )
    return row.model_dump(mode="json")
