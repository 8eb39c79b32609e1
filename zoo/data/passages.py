"""Plain texts as rows: passages, lines, or damaged lines with what they were.

What a task calls its ``unit`` is a row of :data:`UNITS`. Each document is divided into blocks for
training, validation and test, so that no passage is beside one of its own split's neighbours, and
every document is a group of each split.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.text import ANSWER

#: Characters of a passage.
PASSAGE = 256
#: Shorter ends of a document, and shorter or longer lines, are left out.
SHORTEST_PASSAGE = 64
LINE = (16, 48)
#: How often a letter of a line is damaged.
DAMAGE = 0.1
#: Of each document, so much is validation and test.
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}


def passages(text: str, seed: int) -> list[str]:
    """A document cut into passages of :data:`PASSAGE` characters; a short end is left out."""
    found = [text[k : k + PASSAGE] for k in range(0, len(text), PASSAGE)]
    return [part for part in found if len(part) >= SHORTEST_PASSAGE]


def lines(text: str, seed: int) -> list[str]:
    """A document's lines of usual length, blanks around them removed."""
    found = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in found if LINE[0] <= len(line) <= LINE[1]]


def damaged_lines(text: str, seed: int) -> list[str]:
    """Every second line damaged, then :data:`zoo.data.text.ANSWER`, then the line as it was."""
    found = lines(text, seed)[::2]
    return [f"{damage(line, [seed, k])}{ANSWER}{line}" for k, line in enumerate(found)]


def damage(line: str, seed: Any) -> str:
    """A line with letters dropped, doubled, swapped with the next, or replaced: a tenth of them.

    A function of the line and the seed alone; at least one letter is damaged.
    """
    rng = np.random.default_rng(seed)
    letters, out, k = list(line), [], 0
    hit = rng.random(len(letters)) < DAMAGE
    hit[rng.integers(len(letters))] = True
    while k < len(letters):
        kind = rng.integers(4) if hit[k] else -1
        if kind == 1:
            out += [letters[k], letters[k]]
        elif kind == 2 and k + 1 < len(letters):
            out += [letters[k + 1], letters[k]]
            k += 1
        elif kind >= 2:
            out.append(string.ascii_lowercase[rng.integers(26)])
        elif kind < 0:
            out.append(letters[k])
        k += 1
    return "".join(out)


UNITS: dict[str, Callable[[str, int], list[str]]] = {
    "passage": passages,
    "line": lines,
    "damaged line": damaged_lines,
}


@dataclass(frozen=True)
class Cut:
    """Rows of some documents: the texts (n,), their documents' names (n,), their splits (n,)."""

    texts: np.ndarray
    names: np.ndarray
    split: np.ndarray


def cut(documents: Mapping[str, str], unit: str, seed: list[int]) -> Cut:
    """Documents by name as rows of a unit, with the split of each row.

    A document's rows are one ring, cut at a place that the seed decides into three blocks.
    """
    texts: list[str] = []
    names: list[str] = []
    split: list[str] = []
    for number, (name, document) in enumerate(documents.items()):
        found = UNITS[unit](document, number)
        texts += found
        names += [name] * len(found)
        rng = np.random.default_rng([*seed, number])
        place = (np.arange(len(found)) + rng.integers(max(len(found), 1))) % max(len(found), 1)
        limits = np.cumsum(list(SHARES.values())) * len(found)
        split += [list(SHARES)[k] for k in np.searchsorted(limits[:-1], place, side="right")]
    return Cut(np.array(texts, dtype=str), np.array(names, dtype=str), np.array(split, dtype=str))
