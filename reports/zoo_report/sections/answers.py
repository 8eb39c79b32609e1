"""The section of the report on what the model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo_report import picture, svg
from zoo_report.sections.base import Section
from zoo_report.text import clean, plain


class Answers(Section):
    """Pictures of what the model says, where it does not say classes or values."""

    def answers(self) -> dict[str, Any]:
        """Forecasts or generated pictures of each variant that stored some: base first."""
        drawn: list[dict[str, Any]] = []
        for name in self.names:
            shown = self.bundle.variants[name].get("shown")
            make = _SHOWN.get(str(shown["kind"])) if shown else None
            if shown and make and not self.bundle.private:
                drawn.append({"variant": name, **make(shown)})
        return {
            "first": drawn[0] if drawn else None,
            "others": drawn[1:],
            "private": self.bundle.private
            and any(found.get("shown") for found in self.bundle.variants.values()),
        }


def _forecasts(shown: dict[str, np.ndarray]) -> dict[str, Any]:
    """Charts of forecasts: what was known, what came, what the baseline and the model said."""
    unit, target = (str(clean(str(shown[name]))) for name in ("unit", "target"))
    names = ["known", "came", str(clean(str(shown["baseline_name"]))), "forecast"]
    charts = []
    for k, origin in enumerate(shown["origin"]):
        past = shown["past"][k]
        start = len(past)
        ahead = [
            (index, name, [(0.0, float(past[-1])), *enumerate(map(float, values), start=1)])
            for index, name, values in zip(
                (1, 2, 3), names[1:],
                (shown["truth"][k], shown["baseline"][k], shown["forecast"][k]), strict=True,
            )
        ]  # fmt: skip
        known_line = [(float(i + 1 - start), float(value)) for i, value in enumerate(past)]
        label = f"from {clean(str(origin))}: MASE {plain(float(shown['mase'][k]))}"
        lines = [(0, names[0], known_line), *ahead]
        charts.append(
            (label, svg.lines(label, lines, x_label=f"{unit}s from the origin", y_label=target))
        )
    return {
        "title": "Forecasts",
        "text": "Origins evenly spaced over the test block; the forecast saw what stands left of 0.",
        "legend": svg.legend(list(enumerate(names))),
        "charts": charts,
        "montages": [],
    }


def _generated(shown: dict[str, np.ndarray]) -> dict[str, Any]:
    """Reconstructions, samples and a walk through the code, each one picture."""
    pictures, samples, walk = shown["pictures"], shown["samples"], shown["walk"]
    pairs = np.stack([pictures, shown["reconstructions"]])
    columns = len(pictures)
    whole = len(samples) // columns * columns
    nats = [f"{d} ({plain(float(shown['nats'][d]))} nats)" for d in shown["dimensions"].tolist()]
    return {
        "title": "Reconstructions, samples and a walk through the code",
        "text": f"{len(shown['nats'])} latent dimensions tell "
        f"{plain(float(shown['nats'].sum()))} nats of a test picture on average.",
        "legend": "",
        "charts": [],
        "montages": [
            (title, picture.png(picture.montage(grid)))
            for title, grid in (
                ("Test pictures, above, and what their code gives back, below", pairs),
                ("Pictures from codes drawn at random",
                 samples[:whole].reshape(-1, columns, *samples.shape[1:])),
                (f"The first picture as one dimension moves from −2 to 2: {', '.join(nats)}", walk),
            )
        ],
    }  # fmt: skip


_SHOWN: dict[str, Callable[[dict[str, np.ndarray]], dict[str, Any]]] = {
    "forecasts": _forecasts,
    "generated": _generated,
}
