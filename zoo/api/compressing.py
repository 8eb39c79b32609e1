"""Making compressed variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, Interrupted, ZooError
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
    from zoo.compress.recipe import parse, plan
    from zoo.train.session import reopen

    run.variant(parent)
    for recipe in recipes:
        parse(recipe)
    session = reopen(run)
    return session, [(recipe, plan(session, run, recipe, parent)) for recipe in recipes]


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
