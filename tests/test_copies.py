"""The same weights in two implementations give the same outputs (benchmarks/copies.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = {"layers": 2, "heads": 2, "width": 16, "vocabulary": 40}
SIZES = {"bert_base": TINY | {"positions": 64}, "gpt2": TINY | {"shape": (64,)}}


@pytest.fixture(scope="module")
def copies():
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason="the extra `peers` is not installed")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import copies
    finally:
        sys.path.pop(0)
    return copies


@pytest.mark.parametrize("model", SIZES)
def test_a_copy_answers_as_the_original(copies, model):
    (pair,) = [pair for pair in copies.PAIRS if pair.model == model]
    row = copies.compare(pair, SIZES[model])
    assert row["holds"], row
    assert min(row["spread"].values()) > 0.01  # they say something


def test_the_published_sizes_were_compared():
    stored = json.loads((ROOT / "benchmarks/results/copies.json").read_text())
    found = {row["model"]: row for row in stored["results"]}
    assert stored["tolerance"] == 1e-5
    for model, count in (("bert_base", 109_482_240), ("gpt2", 124_439_808)):
        row = found[model]
        assert row["parameters"] == {"ours": count, "theirs": count}
        gaps = [gap for told in row["max_abs"].values() for gap in told.values()]
        assert len(gaps) >= 2
        assert row["holds"] == (max(gaps) <= stored["tolerance"]) is True
