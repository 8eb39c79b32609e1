"""Making variants that treat groups alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoo.api.auditing import fairness
from zoo.api.compressing import compress_all, opened, opened_where_applicable
from zoo.errors import ZooError, unknown
from zoo.progress import QUIET, Progress
from zoo.run import BASE, RUNS, Run, find_run


def mitigate(
    text: str,
    methods: Sequence[str] = (),
    *,
    sensitive: str | None = None,
    constraint: str | None = None,
    variant: str = BASE,
    min_cell: int = 10,
    root: Path = RUNS,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Make the variants of mitigations, and judge each beside the variant it was made of.

    Args:
        methods: steps that mitigate, by name; all that apply by default, and it is said which do not.
        sensitive: the attribute whose groups are to be treated alike; the run's first otherwise.
        constraint: what is to be alike, of :data:`zoo.decision.CONSTRAINTS`.
    Returns ``{run, attribute, results}``, rows as those of ``compress`` with a ``disparity``:
    ``{metric, before, after}``, intervals on the test rows. The metric is the constraint's own, and
    the difference of accuracy where no class of several is the positive one. One that fails has its
    ``error``.
    """
    from zoo.compress.steps import STEPS
    from zoo.decision import CONSTRAINTS

    run = find_run(text, root)
    run.variant(variant)
    known = {name: step for name, step in STEPS.items() if step.mitigates}
    for method in methods:
        if method not in known:
            raise unknown("mitigation", method, known)
    if constraint is not None and constraint not in CONSTRAINTS:
        raise unknown("constraint", constraint, CONSTRAINTS)
    attribute = sensitive or _first(run)
    usual = next(iter(CONSTRAINTS))
    constraint = constraint or usual
    more = "" if constraint == usual else f":{constraint}"
    recipes = [
        f"{name}:{quote(attribute, safe='')}" + (more if known[name].decides else "")
        for name in dict.fromkeys(methods or known)
    ]
    if methods:
        session, planned = opened(run, recipes, variant)
    else:
        session, planned, reasons = opened_where_applicable(run, recipes, variant, progress)
        if not planned:
            raise reasons[0]
    rows = compress_all(session, run, planned, variant, progress)
    judged = {}
    for name in (variant, *(row["variant"] for row in rows if not row["error"])):
        (found,) = fairness(
            str(run.path),
            variant=name,
            attributes=[attribute],
            min_cell=min_cell,
            progress=progress,
        )["results"]
        judged[name] = found["attributes"].get(attribute, {}).get("disparities", {})
    metric = CONSTRAINTS[constraint]
    if metric not in judged[variant]:  # several classes, none of which is the positive one
        metric = "accuracy_difference"
    for row in rows:
        row["disparity"] = None if row["error"] else {
            "metric": metric,
            "before": judged[variant].get(metric),
            "after": judged[row["variant"]].get(metric),
        }  # fmt: skip
    return {"run": str(run.path), "attribute": attribute, "results": rows}


def _first(run: Run) -> str:
    """The first attribute of a run whose groups are not its labels."""
    data = run.document()["data"]
    judged = [name for name in data["groups"] if name not in data["label_groups"]]
    if not judged:
        raise ZooError(
            f"Run {run.name!r} has no groups to treat alike but its labels.",
            expected="a sensitive attribute",
            received=", ".join(data["groups"]) or "no groups",
            hint="Name one when the model is trained: zoo train MODEL --sensitive COLUMN",
            kind="no_groups",
        )
    return judged[0]
