"""What the learning curve says, and what to change: a pure function of the log's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Epochs below which a curve says nothing.
FEWEST = 3
#: Shares of the validation loss' whole fall: a rise after the best epoch that is overfitting, and a
#: fall in the last quarter of the epochs that is worth going on for.
RISE, FALL = 0.1, 0.05
#: A training loss that regained this share of its own fall is diverging.
REGAINED = 0.5
#: A best validation loss above this share of a constant answer's is underfitting.
LITTLE = 0.9


def advise(
    rows: Sequence[Mapping[str, Any]],
    *,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    kind: str,
    constant: float | None = None,
    beaten: bool = False,
) -> dict[str, Any]:
    """The verdict on a training: ``{verdict, why, change: [text]}``.

    Args:
        rows: of ``log.jsonl``, with ``epoch``, ``loss`` and ``val_loss``. The two may be in other
            units (penalties, smoothing), so each curve is judged by itself.
        options, config: the run's training options and its model's settings.
        kind: of the data, such as ``image``.
        constant: the validation loss of the best constant answer, None where unknown.
        beaten: whether the linear baseline, which is no larger a model, does better.
    ``verdict`` is ``diverging``, ``overfitting``, ``still improving``, ``underfitting``, ``plateau``
    or ``too short``.
    """
    train, valid = (
        [math.inf if row[name] is None else float(row[name]) for row in rows]
        for name in ("loss", "val_loss")
    )
    count = len(rows)
    if count < FEWEST:
        why = f"{count} epoch{'s' * (count != 1)}: a curve needs {FEWEST} at least"
        return _said("too short", why, [f"--epochs {max(10, 2 * count)}"])
    best = min(range(count), key=lambda k: valid[k])
    scale = max(valid[0] - valid[best], 0.01 * abs(valid[best]), 1e-12)
    lowest = min(range(count), key=lambda k: train[k])
    regained = train[-1] - train[lowest]
    fall = max(train[0] - train[lowest], 0.01 * abs(train[lowest]), 1e-12)
    rate = float(options["learning_rate"])
    if not math.isfinite(train[-1] + valid[-1]) or regained > REGAINED * fall:
        why = (f"the training loss rose from {train[lowest]:.4g} (epoch {lowest + 1}) to "
               f"{train[-1]:.4g}")  # fmt: skip
        return _said("diverging", why, [f"--set learning_rate={rate / 5:.2g}", *_calmer(options)])
    late = valid[max(best + 1, count - max(1, count // 5)) :]  # the last fifth, after the best
    if late and sum(late) / len(late) - valid[best] > RISE * scale and train[-1] < train[best]:
        why = (f"the validation loss was lowest in epoch {best + 1} ({valid[best]:.4g}) and rose to "
               f"{valid[-1]:.4g}, while the training loss fell on")  # fmt: skip
        return _said("overfitting", why, _simpler(options, config, kind))
    quarter = max(1, count // 4)
    recent = valid[-quarter - 1] - min(valid[-quarter:])
    if recent > FALL * scale and best >= count - quarter:
        why = (f"the validation loss still fell, from {valid[-quarter - 1]:.4g} to "
               f"{valid[best]:.4g} in the last {quarter} epoch{'s' * (quarter != 1)}")  # fmt: skip
        return _said("still improving", why, [f"--epochs {2 * count}"])
    if constant is not None and valid[best] > LITTLE * constant:
        why = (f"the best validation loss, {valid[best]:.4g}, is hardly below the {constant:.4g} of "
               "one answer for all rows")  # fmt: skip
        return _said("underfitting", why, _stronger(options, config))
    if beaten:  # a schedule that has come to its end settles every curve
        why = (f"the validation loss came to rest at {valid[best]:.4g} in {count} epochs, and the "
               "linear baseline does better: there is more to learn from these inputs")  # fmt: skip
        return _said(
            "underfitting", why, [f"--epochs {4 * count}", *_stronger(options, config)[:-1]]
        )
    settled = next(k for k in range(count) if valid[k] - valid[best] <= FALL * scale)
    why = f"the validation loss has settled at {valid[best]:.4g} since epoch {settled + 1}"
    change = ["a larger model, or inputs that say more"]
    if options.get("schedule") == "constant":
        change.insert(0, "--set schedule=cosine settles deeper")
    if settled < count // 2:
        change.insert(0, f"--epochs {settled + 1 + quarter} would have done as well")
    return _said("plateau", why, change)


def _said(verdict: str, why: str, change: list[str]) -> dict[str, Any]:
    return {"verdict": verdict, "why": why, "change": change}


def _calmer(options: Mapping[str, Any]) -> list[str]:
    """What keeps a training from diverging."""
    found = []
    if not options.get("warmup"):
        found.append("--set warmup=0.05")
    if not options.get("clip_norm") and not options.get("clip_value"):
        found.append("--set clip_norm=1")
    return found


def _simpler(options: Mapping[str, Any], config: Mapping[str, Any], kind: str) -> list[str]:
    """What keeps a model from learning its rows by heart."""
    found = []
    if options.get("keep") != "best":
        found.append("--set keep=best keeps the weights of the best epoch")
    if not options.get("patience"):
        found.append("--set patience=3 stops earlier")
    if kind == "image" and "mixup" not in (options.get("augment") or ()):
        found.append("--set augment=affine,mixup")
    if isinstance(config.get("dropout"), float):
        found.append(f"--set dropout={min(0.7, config['dropout'] + 0.2):.2g}")
    if options.get("optimizer") != "adam":
        decay = max(float(options["weight_decay"]), 1e-4) * 5
        found.append(f"--set weight_decay={min(decay, 0.5):.2g}")
    return [*found, "more rows, or a smaller model"]


def _stronger(options: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What lets a model learn more."""
    found = [f"--set learning_rate={float(options['learning_rate']) * 3:.2g}, "
             "or what zoo tune --quick recommends"]  # fmt: skip
    if isinstance(config.get("dropout"), float) and config["dropout"] > 0:
        found.append(f"--set dropout={config['dropout'] / 2:.2g}")
    return [*found, "a larger model, or inputs that say more"]
