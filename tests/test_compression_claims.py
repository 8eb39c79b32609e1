"""The claims of benchmarks/compression.py are judged by what was measured, and by nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "compression.py"


@pytest.fixture(scope="module", autouse=True)
def beside_the_scripts():
    """As where a script runs: modules in its folder can be imported."""
    sys.path.insert(0, str(PATH.parent))
    yield
    sys.path.remove(str(PATH.parent))


@pytest.fixture(scope="module")
def script(beside_the_scripts):
    spec = importlib.util.spec_from_file_location("compression_script", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def seed(**more):
    made = {"metric": "accuracy", "value": 0.9, "drop": 0.0, "worst_group": 0.8,
            "worst_group_drop": 0.0, "bytes": 4_000_000, "bytes_gzip": 3_600_000, "p90_ms": None,
            "sparsity": 0.0, "sparsities": [0.0, 0.0], "smallest_kernel": 1000,
            "pruned_gzip": 1000, "seconds": 1.0}  # fmt: skip
    return {**made, **more}


def test_summaries_are_paired_means(script):
    seeds = {
        "0": {"base": seed(), "int8": seed(drop=0.01, bytes=1_000_000)},
        "1": {"base": seed(bytes=2_000_000), "int8": seed(drop=0.03, bytes=1_000_000)},
        "2": {"base": seed(), "int8": {"error": "it crashed"}},
    }
    base, int8 = script.summary(seeds)
    assert (base["recipe"], base["seeds"], int8["seeds"]) == ("base", 3, 2)
    assert int8["drop"] == pytest.approx(0.02)
    assert int8["drop_sd"] == pytest.approx(0.01414, abs=1e-5)
    assert int8["bytes_ratio"] == pytest.approx((0.25 + 0.5) / 2)
    assert int8["p90_ms_ratio"] is None
    (lost,) = script.summary({"0": {"x": {"error": "it crashed"}}})
    assert lost == {"recipe": "x", "seeds": 0, "error": "it crashed"}


def verdicts(script, model, **recipes):
    found = {name.replace("_", ":").replace("ADD", "+"): made for name, made in recipes.items()}
    row = {"model": model, "recipes": script.summary({"0": {"base": seed(), **found}})}
    return {
        text: verdict for text, name, _, verdict, _ in script.check([row]) if name == model
    }  # fmt: skip


def test_claims_hold_or_do_not(script):
    good = verdicts(
        script, "resnet20",
        **{"prune_0.5": seed(drop=0.004, sparsities=[0.5, 0.5003], pruned_gzip=570)},
        int8=seed(drop=0.004, bytes=1_100_000), qat=seed(drop=0.001), qatADDint8=seed(drop=0.002),
    )  # fmt: skip
    assert good["prune:0.5 costs at most 0.5 points"] == "holds"
    assert good["prune:0.8 costs at most 1.5 points"] == "not measured"
    assert (
        good["each layer's sparsity is exact under prune:0.5 (off by at most one weight)"]
        == "holds"
    )
    assert good["prune:0.5 zips the pruned tensors 1.6 times smaller"] == "holds"
    assert good["qat+int8 is as good as int8 where that costs over 0.5 points"] == "no case of it"
    assert good["int8 is at most 0.28 of a float file above 1 MB"] == "holds"
    bad = verdicts(
        script, "resnet20",
        **{"prune_0.5": seed(drop=0.006, sparsities=[0.49, 0.5], pruned_gzip=700)},
        int8=seed(drop=0.01, bytes=1_200_000), qat=seed(drop=0.0), qatADDint8=seed(drop=0.02),
    )  # fmt: skip
    said = {text for text, verdict in bad.items() if verdict == "does not hold"}
    assert len(said) == 7
    assert "int8 is at most 0.28 of a float file above 1 MB" in said
    assert "trained (qat) and exported (qat+int8) accuracy agree within 0.5 points" in said
    assert all("prune:0.8" not in text for text in said)


def test_the_interval_of_a_paired_mean_is_students():
    from scipy import stats

    import paired

    values = [1.0, 2.0, 4.0]
    mean, low, high = paired.t_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((7 / 3, *expected))
    assert low == pytest.approx(7 / 3 - 4.302653 * (7 / 3) ** 0.5 / 3**0.5, abs=1e-5)
    assert paired.t_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
