"""Making compressed variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, Interrupted, ZooError
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, find_run

if TYPE_CHECKING:
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
    session = opened(run, recipes, variant)
    return {"run": str(run.path), "results": compress_all(session, run, recipes, variant, progress)}


def opened(run: Run, recipes: Sequence[str], parent: str = BASE) -> Session:
    """The session of a run that recipes are to be made of.

    What one of them lacks must not cost the work on the others, and a typo need not wait until the
    data are read. Raises :class:`ZooError` for all that can be refused before any work.
    """
    from zoo.compress.recipe import parse, plan
    from zoo.train.session import reopen

    run.variant(parent)
    for recipe in recipes:
        parse(recipe)
    session = reopen(run)
    for recipe in recipes:
        plan(session, run, recipe, parent)
    return session


def compress_all(
    session: Session, run: Run, recipes: Sequence[str], parent: str, progress: Progress
) -> list[dict[str, Any]]:
    from zoo.backend import tf
    from zoo.compress.recipe import compress as make

    results = []
    for recipe in recipes:
        try:
            results.append(make(session, run, recipe, progress, parent).document())
        except Interrupted:
            raise
        except ZooError as error:
            if error.exit_code != FAILURE and len(recipes) == 1:
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
