"""Variants whose artefact stays as it is, and whose answers depend on the group."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from zoo.decision import SOURCE, learn, randomized
from zoo.errors import NOT_APPLICABLE, ZooError, unknown
from zoo.run import DECISION, Variant, write_atomic
from zoo.tasks import get_task
from zoo.train.objective import mixes

if TYPE_CHECKING:
    from zoo.train.session import Session


def check_groups(session: Session, options: dict[str, Any]) -> None:
    """Raise :class:`ZooError` where there is no group that could be treated otherwise than others."""
    data, attribute = session.data, options["attribute"]
    if not data.classes or get_task(data.task).decode is None:
        raise ZooError(
            "Bias is mitigated where rows have one label of a class.",
            expected="a binary or multiclass task",
            received=data.task,
            kind=NOT_APPLICABLE,
        )
    judged = [name for name in data.groups if name not in data.label_groups]
    if attribute not in judged:
        if attribute in data.label_groups:
            raise ZooError(
                f"The groups of {attribute!r} are the labels themselves.",
                expected=f"one of: {', '.join(judged)}" if judged
                else "a sensitive attribute, which `zoo train --sensitive COLUMN` names",
                received=attribute,
            )  # fmt: skip
        raise unknown("sensitive attribute", attribute, judged)


def check_reweigh(session: Session, options: dict[str, Any]) -> None:
    """:func:`check_groups`, and that rows keep their own labels."""
    check_groups(session, options)
    if mixes(session.options):
        raise ZooError(
            "Rows that are mixed with others have no group of their own to be weighted by.",
            expected="augmentations that do not mix pictures",
            received=", ".join(session.options.augment),
            kind=NOT_APPLICABLE,
        )


def check_threshold(session: Session, options: dict[str, Any]) -> None:
    """:func:`check_groups`, and that there are two classes to set a threshold between."""
    check_groups(session, options)
    if session.data.task != "binary":
        raise ZooError(
            "'threshold' needs two classes.",
            expected="a binary task",
            received=f"{session.data.task}, {len(session.data.classes)} classes",
            hint="`reweigh` takes more classes than two.",
            kind=NOT_APPLICABLE,
        )


def ship_decided(
    session: Session, parent: Variant, name: str, recipe: str, options: dict[str, Any]
) -> Variant:
    """The variant of thresholds found on the parent's validation rows: its artefact and a decision."""
    from zoo.variants import complete, decided, predictions_of

    began = time.perf_counter()
    data, run = session.data, parent.run
    positive = data.classes.index(data.positive) if data.positive else 1
    seen = predictions_of(parent, "val", session)
    attribute = options["attribute"]
    found = learn(
        seen.scores[:, positive], seen.y_true == positive, seen.groups[attribute],
        options["constraint"],
    )  # fmt: skip
    every = [str(group) for group in data.groups[attribute].categories]
    found["plain"] = sorted(set(every) - set(found["groups"]))
    decision = {
        "attribute": attribute,
        "constraint": options["constraint"],
        "positive": data.classes[positive],
        "positive_index": positive,
        "seed": session.seed,
        "split": "val",
        "source": SOURCE,
        "order": every,
        **found,
    }
    said = decided(predictions_of(parent, "test", session), decision)
    with run.new_variant(name) as folder:
        file = parent.artifact
        shutil.copyfile(file, folder / file.name)
        write_atomic(folder / DECISION, json.dumps(decision, indent=1) + "\n")
        fields = {
            **parent.document(),
            "recipe": recipe,
            "kind": "transform",
            "parent": {"variant": parent.name, "sha256": parent.sha256},
            "needs_groups": True,
            "randomized": randomized(found["groups"]),
            "options": options,
            "seconds": time.perf_counter() - began,
        }
        complete(folder, name, [file.name, DECISION], said, data.task, fields)
    return run.variant(name)
