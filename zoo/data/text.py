"""Texts as word ids: a vocabulary of the training rows' words, kept as JSON in the plan.

Words are lower-cased runs of letters and digits, with their apostrophes; punctuation between blanks
is one word, so that ``:-)`` and ``!!!`` stay what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from zoo.errors import ZooError

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
#: Ids of what is no word of the vocabulary: filling in front of short texts, and unknown words.
PADDING, UNKNOWN = 0, 1
SPECIAL = ("(padding)", "(unknown)")
VOCABULARY = 10_000
#: A word of a single training row says nothing about others.
MIN_COUNT = 2
#: Texts keep as many words as this share of the training rows have, within limits.
SHARE, SHORTEST, LONGEST = 0.97, 4, 200


def words(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower())


def fit_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """At most ``size`` words that occur in several texts, most frequent first, ties by alphabet."""
    counts = Counter(word for text in texts for word in set(words(text)))
    known = [word for word, count in counts.items() if count >= MIN_COUNT]
    return sorted(known, key=lambda word: (-counts[word], word))[:size]


def encode(texts: Iterable[str], vocabulary: list[str], length: int) -> np.ndarray:
    """Ids, int32 (n, length): the first ``length`` words, :data:`PADDING` in front of short texts.

    In front, so that a recurrent net ends at the last word. A text without words is one unknown
    word.
    """
    number = {word: k for k, word in enumerate(vocabulary, start=len(SPECIAL))}
    texts = list(texts)
    out = np.full((len(texts), length), PADDING, dtype=np.int32)
    for row, text in zip(out, texts, strict=True):
        ids = [number.get(word, UNKNOWN) for word in words(text)[:length]] or [UNKNOWN]
        row[length - len(ids) :] = ids
    return out


def decode(ids: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """The words of ids (...,): strings of the same shape, ``(padding)`` and ``(unknown)`` besides."""
    return np.array([*SPECIAL, *vocabulary])[ids]


def fit(data: Any, options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The plan of texts: vocabulary and length, from some training rows alone."""
    texts = data.take(rows)
    vocabulary = fit_vocabulary(texts, int(options.get("vocabulary", VOCABULARY)))
    if not vocabulary:
        raise ZooError(
            "The training texts share no word.",
            expected=f"texts in which some words occur in at least {MIN_COUNT} rows",
            received=f"{len(texts):,} texts such as {str(texts[0])[:60]!r}",
            kind="no_inputs",
        )
    lengths = [len(words(text)) for text in texts]
    usual = int(np.clip(np.quantile(lengths, SHARE), SHORTEST, LONGEST))
    return {
        "kind": "text",
        "column": data.columns[0]["name"] if data.columns else "text",
        "shape": [int(options.get("length", usual))],
        "words": vocabulary,
        "vocabulary": len(SPECIAL) + len(vocabulary),
    }


def apply(plan: dict[str, Any], texts: Iterable[str]) -> np.ndarray:
    """Texts -> ids, int32 (n, length)."""
    return encode(texts, plan["words"], plan["shape"][0])
