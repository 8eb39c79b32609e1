"""Numbers and names as a reader wants them: sensible digits, units, and nothing hostile."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, TypeGuard

MINUS = "\u2212"
NONE = "\u2013"  # what is shown for a number that could not be computed
SPACES = {"\t": " ", "\n": " ", "\r": " "}


@dataclass(frozen=True)
class MetricText:
    """How a metric is shown: ``percent`` metrics in %, their changes in points; others in ``unit``.

    ``direction`` is +1 where higher is better, -1 where lower is, 0 for neither.
    """

    label: str
    direction: int
    percent: bool = False
    unit: str = ""


METRICS: dict[str, MetricText] = {
    "accuracy": MetricText("Accuracy", +1, True),
    "balanced_accuracy": MetricText("Balanced accuracy", +1, True),
    "f1_macro": MetricText("F1 (macro)", +1, True),
    "precision_macro": MetricText("Precision (macro)", +1, True),
    "recall_macro": MetricText("Recall (macro)", +1, True),
    "roc_auc": MetricText("ROC AUC", +1),
    "average_precision": MetricText("Average precision", +1),
    "log_loss": MetricText("Log loss", -1, unit="nats"),
    "brier": MetricText("Brier score", -1),
    "ece": MetricText("Calibration error (ECE)", -1, True),
    "selection_rate": MetricText("Selection rate", 0, True),
    "true_positive_rate": MetricText("True positive rate", +1, True),
    "false_positive_rate": MetricText("False positive rate", -1, True),
    "true_negative_rate": MetricText("True negative rate", +1, True),
    "false_negative_rate": MetricText("False negative rate", -1, True),
    "precision": MetricText("Precision", +1, True),
    "mse": MetricText("MSE", -1),
    "rmse": MetricText("RMSE", -1),
    "mae": MetricText("MAE", -1),
    "r2": MetricText("R²", +1),
    "mean_prediction": MetricText("Mean prediction", 0),
    "exact_match": MetricText("Exact match", +1, True),
    "character_error_rate": MetricText("Characters off", -1, True),
    "token_loss": MetricText("Loss a token", -1, unit="nats"),
    "perplexity": MetricText("Perplexity", -1),
    "bits_per_character": MetricText("Bits per character", -1),
    "token_accuracy": MetricText("Token accuracy", +1, True),
    "demographic_parity_difference": MetricText("Demographic parity difference", -1, True),
    "demographic_parity_ratio": MetricText("Demographic parity ratio", +1),
    "equalized_odds_difference": MetricText("Equalized odds difference", -1, True),
    "equalized_odds_ratio": MetricText("Equalized odds ratio", +1),
    "equal_opportunity_difference": MetricText("Equal opportunity difference", -1, True),
    "accuracy_difference": MetricText("Accuracy difference", -1, True),
    "worst_group_accuracy": MetricText("Worst group's accuracy", +1, True),
    "worst_group": MetricText("Worst group", 0),
    "mase": MetricText("MASE", -1),
    "smape": MetricText("SMAPE", -1),
    "elbo": MetricText("ELBO", +1, unit="nats"),
    "mase_difference": MetricText("MASE difference", -1),
    "worst_group_mase": MetricText("Worst group's MASE", -1),
    "elbo_difference": MetricText("ELBO difference", -1, unit="nats"),
    "worst_group_elbo": MetricText("Worst group's ELBO", +1, unit="nats"),
    "mae_difference": MetricText("MAE difference", -1),
    "worst_group_mae": MetricText("Worst group's MAE", -1),
    "token_loss_difference": MetricText("Difference of the loss a token", -1, unit="nats"),
    "worst_group_token_loss": MetricText("Worst group's loss a token", -1, unit="nats"),
    "mean_prediction_difference": MetricText("Mean prediction difference", -1),
}


def metric_text(name: str) -> MetricText:
    """The row of a metric; one that is not in the table is shown plainly, without a direction."""
    return METRICS.get(name, MetricText(name.replace("_", " ").capitalize(), 0))


def sentence_label(name: str) -> str:
    """A metric's label inside a sentence: ``true positive rate``, but ``ROC AUC``."""
    label = metric_text(name).label
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def clean(value: Any) -> Any:
    """A copy of a document in which no string can hide or reorder text.

    Control, format (bidirectional overrides, zero-width), surrogate and private-use characters
    become a visible ``[U+202E]``; tabs and line breaks become spaces. Keys are cleaned too.
    """
    if isinstance(value, str):
        return "".join(_visible(character) for character in value)
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value


def _visible(character: str) -> str:
    if character in SPACES:
        return SPACES[character]
    hidden = unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"
    return f"[U+{ord(character):04X}]" if hidden else character


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters, with an ellipsis where something was cut."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def known(value: Any) -> TypeGuard[float]:
    """True for a finite number (booleans are not numbers here)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """``-1234.5`` with 1 digit -> ``−1,234.5``; a zero has no sign."""
    text = f"{abs(value):,.{digits}f}"
    if not re.search(r"[1-9]", text):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def plain(value: float, *, sign: bool = False) -> str:
    """Three significant digits and thousands separators; integers in full; tiny ones as 1.2e-6."""
    size = abs(value)
    if isinstance(value, int) or size >= 100:
        return fixed(value, 0, sign=sign)
    if size == 0:
        return "0"
    if size < 1e-3:
        mantissa, exponent = f"{size:.1e}".split("e")
        return f"{MINUS if value < 0 else '+' if sign else ''}{mantissa}e{int(exponent)}"
    return fixed(value, max(0, 2 - math.floor(math.log10(size))), sign=sign)


def measure(name: str, value: float, *, change: bool = False, scale: float | None = None) -> str:
    """A metric's value without its unit: 0.853 accuracy -> ``85.3``; as a change ``+0.4`` points.

    ``scale`` is the width of the interval: a narrow one earns further decimals.
    """
    text = metric_text(name)
    if text.percent:
        fine = scale is not None and scale < 0.005 and change
        return fixed(100 * value, 2 if fine else 1, sign=change)
    if abs(value) >= 100:
        return fixed(value, 1 if abs(value) < 1000 else 0, sign=change)
    if change and scale and abs(value) < 0.1 and scale < 0.01:
        return fixed(value, min(6, 1 - math.floor(math.log10(scale))), sign=True)
    if 0 < abs(value) < 0.01:
        return plain(value, sign=change)
    return fixed(value, 3 if abs(value) < 10 else 2, sign=change)


def unit(name: str, *, change: bool = False) -> str:
    """The unit that belongs beside :func:`measure`: `` %``, `` points``, `` nats`` or nothing."""
    text = metric_text(name)
    if not text.percent:
        return text.unit and f" {text.unit}"
    return " points" if change else " %"


def interval(name: str, low: Any, high: Any, *, change: bool = False) -> str:
    """``[84.8, 85.8]``, or nothing where a bound is missing."""
    if not (known(low) and known(high)):
        return ""
    width = high - low
    shown = [measure(name, bound, change=change, scale=width) for bound in (low, high)]
    return f"[{shown[0]}, {shown[1]}]"


def probability(p: float) -> str:
    """``p = 0.012`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def ratio(value: float) -> str:
    """A factor of at least 1 in a sentence: ``1.05``, ``3.7``, ``12``."""
    return fixed(value, 0 if value >= 9.95 else 1 if value >= 1.095 else 2)


def times(
    factor: float | None, better: str, worse: str, same: str, digits: int | None = None
) -> tuple[str, str]:
    """How many times, and which way: (``3.7``, ``smaller``); within 5 % (``""``, ``same``).

    ``digits`` after the point are those of an interval that stands beside it.
    """
    if factor is None:
        return "", ""
    if 0.95 < factor < 1.05:
        return "", same
    size, word = (factor, better) if factor > 1 else (1 / factor, worse)
    return (ratio(size) if digits is None else fixed(size, digits)), word


def times_of(base: Any, other: Any) -> float | None:
    """How many times ``other`` goes into ``base``; None where either is unknown."""
    return base / other if known(base) and known(other) and other > 0 else None


def count(value: Any) -> str:
    """Thousands separators, or a dash."""
    return f"{int(value):,}" if known(value) else NONE


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(parts: list[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def capital(text: str) -> str:
    """The first letter in upper case."""
    return text[:1].upper() + text[1:]


def letter(n: int) -> str:
    """The mark of the n-th footnote, from 1: ``a`` ... ``z``, ``aa``; a figure would read as a power."""
    n -= 1
    return (letter(n // 26) if n >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[n % 26]


SHORT = 0.1  # ms: a column with a shorter time is told in microseconds


def time_unit(values: list[Any]) -> tuple[float, str]:
    """How many of a unit a millisecond is, and its name, for times of which some may be short."""
    shortest = min((value for value in values if known(value) and value > 0), default=1.0)
    return (1000.0, "µs") if shortest < SHORT else (1.0, "ms")


def duration(value: float) -> str:
    """Milliseconds as ``4.8 µs`` or ``1.20 ms``."""
    factor, word = time_unit([value])
    return f"{plain(factor * value)} {word}"


# One unit for a whole column, chosen by its largest value.
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


def byte_unit(values: list[Any]) -> tuple[float, str]:
    """The divisor and name of the decimal unit that suits the largest of ``values``."""
    largest = max((value for value in values if known(value)), default=0)
    return next((row for row in BYTES if largest >= row[0]), BYTES[-1])
