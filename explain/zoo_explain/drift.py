"""Explanation drift: did a variant keep its parent's reasons?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.metrics import bootstrap_weights
from zoo_explain.attribution.quality import row_spearman

SAME = ("method", "row", "names", "targets")  # what two explanations must share,
STORED = ("background", "budget")  # and these, where the files of both tell them


def drift(
    base: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    top: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Compare two explanations of the same rows by the same method.

    Args:
        base, other: the arrays of two ``explain.npz``: ``values`` float (n, players) or
            (n, players, outputs), ``names`` (players,), ``row`` int (n,), ``method``, and
            ``targets`` int (n,) where one of several outputs is explained. ``background`` int (b,),
            its rows, and ``budget``, int, are compared where both have them.
        top: players that count as the top, at most half of them, rounded up: all of them would
            agree whatever their order.

    Returns:
        ``n``, ``method``, ``top``; ``topk_jaccard``: overlap of the two sets of ``top`` players
        of largest importance (mean ``|value|``), intersection over union; ``spearman``: rank
        correlation of the importances, null for one player; ``sample_cosine`` with ``ci_low``
        and ``ci_high``: the mean over rows of the cosine between the two rows' attributions,
        with a percentile bootstrap interval over rows (two rows of zeros agree: 1; one of them:
        0); ``sign_flips``: the share of attributions to the base's top players whose sign is the
        opposite in ``other``.

    Raises:
        ZooError: when method, rows, players, targets, background or budget differ.
    """
    for key in (*SAME, *(key for key in STORED if key in base and key in other)):
        ours, theirs = (np.asarray(side.get(key, ())) for side in (base, other))
        if not np.array_equal(ours, theirs):
            raise ZooError(
                f"Two explanations cannot be compared: their {key} differ.",
                expected=_short(ours),
                received=_short(theirs),
                hint="Explain both with the same method, rows, background, budget and targets.",
                kind="explanations_differ",
            )
    a, b = (np.asarray(side["values"], dtype=np.float64) for side in (base, other))
    if a.shape != b.shape:
        raise ZooError(
            "Two explanations cannot be compared: their shapes differ.",
            expected=str(a.shape),
            received=str(b.shape),
            kind="explanations_differ",
        )
    a, b = (values.reshape(*values.shape[:2], -1) for values in (a, b))
    importance = [np.abs(values).mean(axis=(0, 2)) for values in (a, b)]
    top = min(top, -(-a.shape[1] // 2))
    first, second = (set(np.argsort(-row, kind="stable")[:top].tolist()) for row in importance)
    rank = float(row_spearman(importance[0][None], importance[1][None])[0])
    cosine = _cosine(a.reshape(len(a), -1), b.reshape(len(b), -1))
    means = [
        weights @ cosine / len(cosine)
        for weights in bootstrap_weights(len(cosine), resamples, seed)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    leaders = sorted(first)
    return {
        "method": str(base.get("method", "")),
        "n": len(a),
        "top": top,
        "topk_jaccard": len(first & second) / len(first | second),
        "spearman": None if np.isnan(rank) else rank,
        "sample_cosine": float(cosine.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "sign_flips": float((a[:, leaders] * b[:, leaders] < 0).mean()),
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    lengths = np.stack([np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)])
    product = np.divide((a * b).sum(axis=1), lengths.prod(axis=0), out=np.zeros(len(a)),
                        where=lengths.prod(axis=0) > 0)  # fmt: skip
    return np.where(lengths.max(axis=0) == 0, 1.0, product)


def _short(values: np.ndarray) -> str:
    text = ", ".join(map(str, values.ravel()[:5]))
    return f"{text}, ... ({values.size})" if values.size > 5 else text or "(absent)"
