"""What the documents say, in words: which variant is smaller, faster, worse, and for whom.

Two questions are kept apart: *is a change real* (its adjusted p value on these rows) and *is it
large* (set against what retraining with other seeds does).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zoo_report.bundle import Bundle
from zoo_report.text import (
    capital,
    count,
    fixed,
    interval,
    known,
    listed,
    measure,
    metric_text,
    plural,
    probability,
    sentence_label,
    times,
    times_of,
    unit,
)

ALPHA = 0.05  # a change is called measurable when its Holm-adjusted p is below
TOLERANCE = 0.01  # how much a recommended variant may lose: a point, or 1 % of base's error
#: What a change must reach to be told as a finding: a tenth of what the rule lets a variant lose, so
#: that ten such changes together could not decide it. Chosen before looking, as a smallest effect
#: size of interest is (Lakens, Scheel & Isager, AMPPS 1(2), 2018): a p value says only that many
#: rows were compared.
RELEVANT = TOLERANCE / 10
Z95 = 1.959964  # standard normal, 97.5 %
NAMED_CHANGES = 3  # changes spelled out in a verdict; the others are counted
ALL, GAP = "(all)", "(gap)"
MAIN_METRICS = ("accuracy", "mase", "elbo", "mae", "rmse", "token_loss")


@dataclass(frozen=True)
class Outcome:
    """One variant against base. Ratios are base over variant (above 1: the variant is better).

    ``faster`` is ``(ratio, low, high)``: of rounds side by side, or without an interval (NaN) of two
    separate measurements.
    ``overall`` is the change of the main metric over all rows, ``elsewhere`` the measurable losses
    in other metrics there; ``losses``, ``gains`` and ``shifts`` are findings in groups, and
    ``negligible`` counts the measurable changes there that are too small to be one. Of ``groups``
    some metric was compared; ``small`` ones have too few rows for any.
    """

    name: str
    smaller: float | None
    zipped: float | None  # the ratio of the zipped files
    faster: tuple[float, float, float] | None
    overall: dict[str, Any] | None
    losses: list[dict[str, Any]]
    gains: list[dict[str, Any]]
    shifts: list[dict[str, Any]]
    widened: list[dict[str, Any]]
    elsewhere: list[dict[str, Any]]
    negligible: int
    tested: int
    groups: int
    small: int
    error: str | None


class Findings:
    """Reads a bundle (cleaned already) and answers the questions that a verdict needs."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.run = bundle.run
        self.names = list(bundle.variants)
        self.base = "base" if "base" in self.names else None
        self.deltas = list((bundle.audit or {}).get("deltas", []))
        # A recipe that failed may have left no folder: the audit alone knows of it.
        self.lost = {
            str(row["variant"]): row
            for row in (bundle.audit or {}).get("variants", [])
            if row.get("error") and row.get("variant") not in self.names
        }
        base_metrics = self.metrics("base")
        named = [name for name in MAIN_METRICS if name in base_metrics]
        self.main = next(iter([*named, *base_metrics, "accuracy"]))
        self.outcomes = [self._outcome(n) for n in [*self.names, *self.lost] if n != "base"]

    # What was measured

    def document(self, name: str) -> dict[str, Any]:
        """A variant's variant.json, or the audit's row of one that failed."""
        found = self.bundle.variants.get(name)
        return found["variant"] if found else self.lost.get(name, {})

    def evaluation(self, name: str, split: str = "test") -> dict[str, Any] | None:
        """The entry of metrics.json on a split."""
        stored = self.bundle.variants.get(name, {}).get("metrics") or {}
        return next((r for r in stored.get("results", []) if r.get("split", split) == split), None)

    def metrics(self, name: str) -> dict[str, dict[str, Any]]:
        """``{metric: {value, ci_low, ci_high}}``; without intervals where it was not evaluated."""
        found = self.evaluation(name)
        if found:
            return found.get("metrics", {})
        bare = self.document(name).get("metrics") or {}
        return {metric: {"value": value} for metric, value in bare.items()}

    def latest(self, name: str, kind: str, **wanted: Any) -> dict[str, Any] | None:
        """The newest of a variant's results; one that failed only where there is no other."""
        found = [
            result
            for result in self.bundle.variants.get(name, {}).get(kind) or []
            if all(result.get(key) == value for key, value in wanted.items())
        ]
        ordered = sorted(found, key=lambda result: (not result.get("error"), result["created"]))
        return ordered[-1] if ordered else None

    def explained(self, name: str) -> dict[str, Any] | None:
        """The explanation whose values are in explain.npz; the newest where none is."""
        arrays = self.bundle.variants.get(name, {}).get("arrays") or {}
        own = (
            self.latest(name, "explain", method=str(arrays["method"]), split="test")
            if "method" in arrays
            else None
        )
        return own or self.latest(name, "explain")

    def latency(self, name: str, which: str) -> float | None:
        """A percentile of SingleStream latency, ms."""
        found = self.latest(name, "benchmark", scenario="SingleStream") or {}
        value = (found.get("latency_ms") or {}).get(which)
        return value if known(value) else None

    def runtime(self, name: str) -> str | None:
        """What an artefact was measured in: ``litert`` or ``keras``."""
        found = self.latest(name, "benchmark", scenario="SingleStream") or {}
        return found.get("runtime")

    def unlike(self, name: str) -> bool:
        """Whether a variant was measured in another runtime than base."""
        return None not in (own := {self.runtime(name), self.runtime("base")}) and len(own) > 1

    # What changed

    def _faster(self, name: str) -> tuple[float, float, float] | None:
        if self.unlike(name):
            return None
        audited = (self.bundle.audit or {}).get("variants", [])
        row: dict[str, Any] = next((r for r in audited if r.get("variant") == name), {})
        speed = row.get("speed") or {}
        values = tuple(speed.get(key) for key in ("ratio", "ci_low", "ci_high"))
        if all(known(value) for value in values) and len(speed.get("rounds", ())) > 1:
            return values  # type: ignore[return-value]
        ratio = times_of(self.latency("base", "p90"), self.latency(name, "p90"))
        return None if ratio is None else (ratio, math.nan, math.nan)

    def _outcome(self, name: str) -> Outcome:
        rows = [row for row in self.deltas if row.get("variant") == name]
        grouped = [row for row in rows if row.get("group") not in (ALL, GAP)]
        changed = [row for row in grouped if self.finding(row)]
        compared = {
            (row["attribute"], row["group"]) for row in grouped if known(row.get("p_adjusted"))
        }
        overall = [r for r in rows if r.get("group") == ALL and r.get("metric") == self.main]
        smaller, zipped = (
            times_of(self.document("base").get(size), self.document(name).get(size))
            for size in ("bytes", "bytes_gzip")
        )
        return Outcome(
            name=name,
            smaller=smaller,
            zipped=zipped,
            faster=self._faster(name),
            overall=overall[0] if overall else None,
            losses=[row for row in changed if benefit(row) < 0],
            gains=[row for row in changed if benefit(row) > 0],
            shifts=[row for row in changed if benefit(row) == 0],
            widened=[
                row
                for row in rows
                if row.get("group") == GAP and self.finding(row) and row["ci_low"] > 0
            ],
            elsewhere=[
                row
                for row in rows
                if row.get("group") == ALL
                and row.get("metric") != self.main
                and self.finding(row)
                and benefit(row) < 0
            ],
            negligible=sum(measurable(row) and not self.matters(row) for row in grouped),
            tested=sum(known(row.get("p_adjusted")) for row in grouped),
            groups=len(compared),
            small=len({(row["attribute"], row["group"]) for row in grouped} - compared),
            error=self.document(name).get("error"),
        )

    def matters(self, row: dict[str, Any]) -> bool:
        """Whether a change is large enough to be a finding: see :data:`RELEVANT`.

        Shares are compared in points, errors and scores with base's own; what is neither better nor
        worse and has no natural zero, as the mean prediction, with base's main metric.
        """
        if not known(row.get("delta")):
            return False
        text = metric_text(row["metric"])
        size = abs(row["delta"])
        if text.percent:
            return size >= RELEVANT
        own = row.get("base") if text.direction and row.get("group") != GAP else None
        against = own if known(own) else self.metrics("base").get(self.main, {}).get("value")
        return size >= RELEVANT * abs(against) if known(against) else True

    def finding(self, row: dict[str, Any]) -> bool:
        """A change that is measurable, or for a gap has an interval without zero, and matters."""
        low, high = row.get("ci_low"), row.get("ci_high")
        if row.get("group") == GAP:
            return known(low) and known(high) and (low > 0 or high < 0) and self.matters(row)
        return measurable(row) and self.matters(row)

    # The recommendation

    @property
    def rule(self) -> str:
        """The rule by which a variant is recommended, in one sentence."""
        metric = metric_text(self.main)
        side = "above \u2212" if metric.direction > 0 else "below +"
        much = f"{100 * TOLERANCE:.0f} point" if metric.percent else f"{TOLERANCE:.0%} of base's"
        bound = f"stays {side}{much}"
        return (
            f"the smallest variant whose 95 % interval of the change in {sentence_label(self.main)}"
            f" {bound}, with no measurable loss in any group (Holm-adjusted p < {ALPHA}) that is not "
            "negligible"
        )

    def rejection(self, outcome: Outcome) -> str | None:
        """Why a variant is not eligible, or None."""
        row = outcome.overall
        if outcome.error:
            return "it failed"
        if self.document(outcome.name).get("needs_groups"):
            return "it needs the group of each row"
        if outcome.smaller is None:
            return "its size is unknown"
        if outcome.smaller <= 1:
            if zipped := _zipped(outcome):
                return f"it is smaller than base only after gzip ({zipped} times)"
            return "it is not smaller than base"
        if row is None or not known(row.get("ci_low")) or not known(row.get("ci_high")):
            return f"its change in {sentence_label(self.main)} has no interval"
        better = metric_text(self.main).direction > 0
        share = metric_text(self.main).percent
        allowed = TOLERANCE if share else TOLERANCE * abs(row.get("base") or 0.0)
        worst, best = sorted((row["ci_low"], row["ci_high"]), reverse=not better)
        if (worst if better else -worst) <= -allowed:
            certain = (best if better else -best) <= -allowed
            still = abs(row.get("delta") or 0.0) < TOLERANCE  # else it is the change that speaks
            if not certain and still and (few := self.too_few(row)):
                return few
            moved = ("fell" if better else "rose") if certain else ""
            moved = moved or f"may have {'fallen' if better else 'risen'}"
            shown = interval(self.main, row["ci_low"], row["ci_high"], change=True)
            return (
                f"its {sentence_label(self.main)} {moved} by more than the rule allows: "
                f"the change is anywhere in {shown}{unit(self.main, change=True)}"
            )
        if outcome.losses:
            return (
                f"{plural(len(outcome.losses), 'measurable loss', 'measurable losses')} in groups"
            )
        if not outcome.tested:
            return "no group was compared"
        return None

    def too_few(self, row: dict[str, Any]) -> str:
        """That no variant could meet the rule on so few rows, were every answer the same; or nothing.

        The interval of a share's paired change (Bonett & Price, JEBS 37(4), 2012) is
        ``z * sqrt(2) / (n + 2)`` wide on either side where no answer changed.
        """
        needed = math.floor(Z95 * math.sqrt(2) / TOLERANCE - 2) + 1
        if not metric_text(self.main).percent or not known(row.get("n")) or row["n"] >= needed:
            return ""
        return (
            f"too few test rows ({count(row['n'])}) for a rule of {100 * TOLERANCE:.0f} point: "
            f"about {needed} would be needed even if no answer changed"
        )

    @property
    def recommended(self) -> Outcome | None:
        """The variant that the rule picks; none without a current audit."""
        if self.bundle.audit is None or "audit.json" in self.bundle.stale:
            return None
        eligible = [outcome for outcome in self.outcomes if self.rejection(outcome) is None]
        return max(eligible, key=lambda o: (o.smaller or 0, (o.faster or (0.0,))[0]), default=None)

    # Sentences

    def headline(self) -> str:
        """The first sentence of the report."""
        if self.bundle.audit is None:
            return "These variants were not compared yet, so nothing is recommended."
        if "audit.json" in self.bundle.stale:
            return "The comparison is older than the files beside it, so nothing is recommended."
        if not self.outcomes:
            return "There is no variant besides base to compare."
        best = self.recommended
        if best is None:
            few = {self.rejection(outcome) for outcome in self.outcomes if not outcome.error}
            if len(few) == 1 and (reason := str(few.pop())).startswith("too few test rows"):
                return f"{capital(reason)}. So base stays the recommended one."
            return "No variant meets the rule, so base stays the recommended one."
        return f"{best.name} is the recommended variant: {self.costs(best)}."

    def costs(self, outcome: Outcome) -> str:
        """``3.7 times smaller and 1.4 times faster at p90 than base``."""
        said = [part for part in (_size(outcome), self.speed(outcome)) if part]
        if not said:
            return "neither its size nor its speed was measured against base"
        return f"{listed(said)}{' as base' if 'about' in said[-1] else ' than base'}"

    def speed(self, outcome: Outcome) -> str:
        """``1.4 times faster [1.2, 1.6]``; without rounds side by side ``1.4 times faster at p90``."""
        if outcome.faster is None:
            return ""
        factor = outcome.faster[0]
        within = self.speed_interval(outcome)
        if not within:
            return _times(factor, "faster at p90", "slower at p90", "about as fast at p90")
        told = _times(self.shown_speed(outcome), "faster", "slower", "about as fast", 2)
        return f"{told} {within}"

    def shown_speed(self, outcome: Outcome) -> float | None:
        """The factor to tell: 1 where the interval holds it, since no difference was shown then."""
        if outcome.faster is None:
            return None
        factor, low, high = outcome.faster
        return 1.0 if low <= 1 <= high else factor

    def slower(self, outcome: Outcome) -> bool:
        """Whether a variant's speed is told as times slower."""
        return times(self.shown_speed(outcome), "faster", "slower", "same", 2)[1] == "slower"

    def speed_interval(self, outcome: Outcome) -> str:
        """``[1.2, 1.6]``, of times faster or, for a slower variant, of times slower."""
        _, low, high = outcome.faster or (math.nan,) * 3
        if not known(low):
            return ""
        if self.slower(outcome):
            low, high = 1 / high, 1 / low
        return f"[{fixed(low, 2)}, {fixed(high, 2)}]"

    def effects(self, outcome: Outcome) -> list[str]:
        """What a variant changed, a sentence each: overall, then for groups."""
        if outcome.error:
            return [f"This variant could not be made or measured: {outcome.error}"]
        if outcome.overall is None:
            return [f"Its change in {sentence_label(self.main)} was not measured."]
        sentences = [self._overall(outcome.overall)]
        if outcome.elsewhere:
            told = "; ".join(_moved(row) for row in outcome.elsewhere[:NAMED_CHANGES])
            sentences.append(f"Over all rows, {told}.")
        kinds = [
            ("measurable loss", "measurable losses", outcome.losses),
            ("measurable gain", "measurable gains", outcome.gains),
            ("measurable shift", "measurable shifts", outcome.shifts),
        ]
        present = [kind for kind in kinds if kind[2]]
        if not present:
            sentences.append(self._nothing(outcome))
        else:  # the worst kind there is in full, the others counted
            sentences.append(self._named(*present[0]))
            counts = [plural(len(rows), one, many) for one, many, rows in present[1:]]
            if counts:
                sentences.append(f"Besides, {listed(counts)} in groups, listed below.")
        if outcome.negligible:
            sentences.append(
                f"{capital(plural(outcome.negligible, 'change'))} in groups "
                f"{'is' if outcome.negligible == 1 else 'are'} measurable but negligible."
            )
        return sentences + [f"{_gap(row)}." for row in outcome.widened[:NAMED_CHANGES]]

    def _overall(self, row: dict[str, Any]) -> str:
        if row.get("flips") and not any(row["flips"].values()):
            return f"No answer went from right to wrong or back (n = {count(row.get('n'))})."
        told = f"{capital(sentence_label(row['metric']))} changed by {change(row)}"
        if not known(row.get("p_adjusted")):
            return f"{told}."
        small = "" if self.matters(row) else " but negligible"
        real = f"a measurable{small} change" if measurable(row) else "not a measurable change"
        seeds = self.against_seeds(row)
        tested = f"{real} (adjusted {probability(row['p_adjusted'])})"
        return f"{told}: {tested}{', ' + seeds if seeds else ''}."

    def against_seeds(self, row: dict[str, Any]) -> str:
        """How a change compares with what retraining with other seeds does, or nothing."""
        floor = (self.noise_floor.get("metrics") or {}).get(row["metric"], {})
        if not (known(floor.get("range95")) and known(row.get("delta"))):
            return ""
        size = "larger" if abs(row["delta"]) > floor["range95"] else "no larger"
        told = measure(row["metric"], floor["range95"], change=True).lstrip("+")
        return (
            f"{size} than what training with another seed does (95 % of such differences are "
            f"within {told}{unit(row['metric'], change=True)})"
        )

    @property
    def noise_floor(self) -> dict[str, Any]:
        """The audit's noise floor, empty without an audit."""
        return (self.bundle.audit or {}).get("noise_floor") or {}

    def _named(self, one: str, many: str, rows: list[dict[str, Any]]) -> str:
        strongest = sorted(rows, key=lambda row: -abs(row["delta"]))[:NAMED_CHANGES]
        told = "; ".join(_moved(row) for row in strongest)
        more = f"; {len(rows) - len(strongest)} more below" if len(rows) > len(strongest) else ""
        return f"{capital(plural(len(rows), one, many))} in groups: {told}{more}."

    def _nothing(self, outcome: Outcome) -> str:
        if not outcome.tested:
            return "No group was compared."
        small = f"; {plural(outcome.small, 'group')} too small for any" if outcome.small else ""
        how = "by more than is negligible" if outcome.negligible else "measurably"
        told = (
            f"No group changed {how} ({plural(outcome.tested, 'comparison')} in "
            f"{plural(outcome.groups, 'group')}{small})."
        )
        rows = [
            row
            for row in self.deltas
            if row.get("variant") == outcome.name
            and row.get("metric") == self.main
            and row.get("group") not in (ALL, GAP)
            and known(row.get("ci_low"))
            and known(row.get("ci_high"))
            and row.get("n")
        ]
        unsure = max(rows, key=self._doubt, default=None)
        if unsure is None:
            return told
        who = f"The least certain is {unsure['attribute']} = {unsure['group']}"
        size = f"(n = {count(unsure['n'])})"
        if unsure["ci_low"] == unsure["ci_high"]:
            return (
                f"{told} {who} {size}: nothing changed there, which still allows that up to "
                f"{fixed(100 * self._doubt(unsure), 1)} % of such rows would (rule of three)."
            )
        shown = interval(self.main, unsure["ci_low"], unsure["ci_high"], change=True)
        return (
            f"{told} {who} {size}, where the change in {sentence_label(self.main)} may be anywhere "
            f"in {shown}{unit(self.main, change=True)}."
        )

    def _doubt(self, row: dict[str, Any]) -> float:
        """The width of a change's interval; where no row changed, the rule of three.

        A bootstrap of rows without any change has no width however few they are, while up to 3/n
        of such rows may change at 95 % confidence (Hanley & Lippman-Hand, JAMA 249(13), 1983).
        """
        width = row["ci_high"] - row["ci_low"]
        return width or min(1.0, 3 / row["n"])

    def standing(self) -> str:
        """The model and its baseline on the main metric, and which of them is better."""
        entry = self._beside()
        if entry is None:
            return ""
        name, mine, theirs, baseline = entry
        own, other = _apart(name, mine, theirs)
        said = (
            f"{capital(sentence_label(name))} {own}, against {other} of the baseline "
            f"({baseline['name']})"
        )
        row = (baseline.get("difference") or {}).get(name) or {"delta": mine - theirs}
        row = {"metric": name, **row}
        gain, low, high = benefit(row), row.get("ci_low"), row.get("ci_high")
        if known(low) and known(high) and low <= 0 <= high:
            shown = interval(name, low, high, change=True)
            points = unit(name, change=True)
            return f"{said}: no measurable difference ({shown}{points}, n = {count(row.get('n'))})."
        if not gain:
            return f"{said}: they are alike."
        better = "the model" if gain > 0 else "the baseline"
        if known(low) and known(high):  # sizes, the smaller end first: the verb tells the direction
            row["ci_low"], row["ci_high"] = sorted((abs(low), abs(high)))
        row["delta"] = abs(row["delta"])
        if metric_text(name).percent and row["delta"] < CLOSE:
            return f"{said}: {better} is better by {_finely(row)}."
        told = change(row, absolute=True).replace("+", "")
        return f"{said}: {better} is better by {told}."

    @property
    def beaten(self) -> bool:
        """Whether the baseline is better than the model, by more than the rows leave open."""
        entry = self._beside()
        if entry is None:
            return False
        name, mine, theirs, baseline = entry
        row = {"metric": name, "delta": mine - theirs}
        row |= (baseline.get("difference") or {}).get(name) or {}
        low, high = row.get("ci_low"), row.get("ci_high")
        unsure = known(low) and known(high) and low <= 0 <= high
        return benefit(row) < 0 and not unsure

    def _beside(self) -> tuple[str, float, float, dict[str, Any]] | None:
        """The main metric, its value of the model and of the baseline, and the baseline's entry."""
        result = self.run.get("result") or {}
        baseline, mine = result.get("baseline") or {}, result.get("metrics") or {}
        theirs = baseline.get("metrics") or {}
        for name in (self.main, *mine):
            if known(mine.get(name)) and known(theirs.get(name)) and metric_text(name).direction:
                return name, mine[name], theirs[name], baseline
        return None

    def target(self) -> str:
        """The target line: hit or missed; the baseline too where :meth:`standing` has not told it."""
        result = self.run.get("result") or {}
        target, baseline = result.get("target") or {}, result.get("baseline") or {}
        if not target:
            return "No target was checked: training has not finished."
        name = target["metric"]
        if name is None:
            return f"Target: {target.get('reason', 'none')}."
        asked = f"{capital(sentence_label(name))} {_value(name, target['value'])}"
        if target.get("reason"):
            return f"No target is checked here: {target['reason']}."
        if not known(target.get("reached")):
            return f"Target: {asked}; what was reached is unknown."
        word = "hit" if target["hit"] else "missed"
        told = f"Target {word}: {asked} asked, {_value(name, target['reached'])} reached"
        reference = (baseline.get("metrics") or {}).get(name)
        beside = self._beside()
        if not known(reference) or (beside and beside[0] == name):
            return f"{told}."
        return f"{told}; the baseline ({baseline.get('name')}) reaches {_value(name, reference)}."

    def gates(self) -> str:
        """How many gates passed."""
        gates = (self.bundle.audit or {}).get("gates") or []
        if not gates:
            return "No gate was set"
        failed = [gate for gate in gates if not gate.get("passed")]
        if not failed:
            return f"{'The gate' if len(gates) == 1 else f'All {len(gates)} gate checks'} passed"
        return f"{len(failed)} of {plural(len(gates), 'gate check')} failed"


def measurable(row: dict[str, Any]) -> bool:
    """A change whose adjusted p is below ALPHA and whose interval, if any, leaves out zero."""
    low, high = row.get("ci_low"), row.get("ci_high")
    if known(low) and known(high) and low <= 0 <= high:
        return False
    return known(row.get("p_adjusted")) and known(row.get("delta")) and row["p_adjusted"] < ALPHA


def benefit(row: dict[str, Any]) -> float:
    """The change with the sign of its effect: above 0 better, below worse, 0 neither."""
    direction = metric_text(row["metric"]).direction
    return direction * row["delta"] if known(row.get("delta")) else 0.0


def change(row: dict[str, Any], *, absolute: bool = False) -> str:
    """``−0.1 points [−0.3, +0.1] (n = 16,281)``; ``absolute`` leaves the sign to the verb."""
    name, low, high = row["metric"], row.get("ci_low"), row.get("ci_high")
    if not known(row.get("delta")):
        return f"an unknown amount ({row.get('reason') or 'no reason given'})"
    width = high - low if known(low) and known(high) else None
    told = measure(name, row["delta"], change=True, scale=width)
    told = told.lstrip("+\u2212") if absolute else told
    around = interval(name, low, high, change=True)
    size = f" (n = {count(row['n'])})" if known(row.get("n")) else ""
    return f"{told}{unit(name, change=True)}{' ' + around if around else ''}{size}"


def _moved(row: dict[str, Any]) -> str:
    """``accuracy of sex = Female fell by 2.1 points [...] (n = 90), adjusted p = 0.002``."""
    who = "" if row["group"] == ALL else f" of {row['attribute']} = {row['group']}"
    verb = "rose" if row["delta"] > 0 else "fell"
    return (
        f"{sentence_label(row['metric'])}{who} {verb} by {change(row, absolute=True)}, adjusted "
        f"{probability(row['p_adjusted'])}"
    )


def _gap(row: dict[str, Any]) -> str:
    return f"The {sentence_label(row['metric'])} by {row['attribute']} widened by {change(row)}"


CLOSE = 0.01  # shares nearer to each other than this are told with a second decimal


def _apart(name: str, one: float, other: float) -> tuple[str, str]:
    """Two values as texts that differ where the values do by the change told beside them."""
    if metric_text(name).percent and abs(one - other) < CLOSE:
        return f"{fixed(100 * one, 2)}{unit(name)}", f"{fixed(100 * other, 2)}{unit(name)}"
    return _value(name, one), _value(name, other)


def _finely(row: dict[str, Any]) -> str:
    """A small difference of shares, above 0: ``0.34 points [0.07, 0.61] (n = 16,281)``."""
    low, high = row.get("ci_low"), row.get("ci_high")
    around = ""
    if known(low) and known(high):
        around = f" [{fixed(100 * low, 2)}, {fixed(100 * high, 2)}]"
    size = f" (n = {count(row['n'])})" if known(row.get("n")) else ""
    return f"{fixed(100 * row['delta'], 2)} points{around}{size}"


def _value(name: str, value: float) -> str:
    return measure(name, value) + unit(name)


def _zipped(outcome: Outcome) -> str:
    """How many times smaller the zipped file is than base's, or nothing if it is not."""
    number, word = times(outcome.zipped, "smaller", "larger", "")
    return number if word == "smaller" else ""


def _size(outcome: Outcome) -> str:
    same = "about the same size"
    told = _times(outcome.smaller, "smaller", "larger", same)
    zipped = _zipped(outcome) if told == same else ""
    return f"{told} ({zipped} times smaller after gzip)" if zipped else told


def _times(
    factor: float | None, better: str, worse: str, same: str, digits: int | None = None
) -> str:
    number, word = times(factor, better, worse, same, digits)
    return f"{number} times {word}" if number else word


def grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """``(variant, text)`` pairs -> each text once, with the variants it holds for."""
    holders: dict[str, list[str]] = {}
    for name, text in pairs:
        holders.setdefault(text, []).append(name)
    return [f"{text} ({', '.join(dict.fromkeys(names))})" for text, names in holders.items()]
