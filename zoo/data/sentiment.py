"""Sentences rated by people from -4 to 4, from four sources (Hutto & Gilbert, ICWSM 2014)."""

from __future__ import annotations

import re

from zoo.data.shipped import read_csv
from zoo.data.table import Request, Table
from zoo.errors import unknown
from zoo.spec import DatasetSpec

_WORDS = {
    "female": re.compile(r"\b(she|her|hers|herself|woman|women|girl|girls|actress|mother|wife|mom|daughter|sister|female|lady|ladies)\b", re.I),
    "male": re.compile(r"\b(he|him|his|himself|man|men|boy|boys|actor|father|husband|dad|son|brother|male|gentleman|gentlemen|guy|guys)\b", re.I),
}  # fmt: skip


def gender_words(text: str) -> str:
    """Which gendered words a text mentions: "female", "male", "both" or "none"."""
    found = [name for name, words in _WORDS.items() if words.search(text)]
    return "both" if len(found) == 2 else (found[0] if found else "none")


def load(request: Request) -> Table:
    """The sign of the rating (0 dropped), or the rating itself with ``--target rating``."""
    import numpy as np

    frame = read_csv(SPECS[0])
    target = request.target or "sentiment"
    if target == "rating":
        y, task = frame["rating"].to_numpy(), "regression"
    elif target != "sentiment":
        raise unknown("target", target, ("sentiment", "rating"))
    else:
        frame = frame[frame["rating"] != 0].reset_index(drop=True)
        y = np.where(frame["rating"] > 0, "positive", "negative")
        task = "binary"
    return Table(
        kind="text",
        x=frame["text"].to_numpy(dtype=str),
        y=y,
        sha256=SPECS[0].sha256,
        target=target,
        task=task,
        groups={
            "source": frame["source"].to_numpy(),
            "gender words": np.array([gender_words(text) for text in frame["text"]]),
        },
        split=frame["split"].to_numpy(),
        license=SPECS[0].license,
        source=SPECS[0].source,
    )


SPECS = [
    DatasetSpec(
        name="sentiment",
        kind="text",
        task="binary",
        load=load,
        rows=23619,
        classes=("negative", "positive"),
        groups=("source", "gender words"),
        features=1,
        license="MIT",
        source="Hutto & Gilbert, VADER, ICWSM 2014",
        file="sentiment.csv.gz",
        bytes=1167637,
        sha256="3b2ff029c35b5349b422dd89bf7a8969a1d910b85aff2c3de0f685e8bf598d20",
        description="Is the sentence positive or negative? (--target rating for the rating itself)",
    )
]
