"""The section of the report on reasons."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from markupsafe import Markup

from zoo_report import picture, svg
from zoo_report.findings import grouped
from zoo_report.sections.base import Cell, Section, Table, header
from zoo_report.text import NONE, capital, clean, count, known, plain

TOP_FEATURES, BEES = 12, 150  # bars and rows of a beeswarm; points in one of its rows
PATCH = re.compile(r"r(\d+)c(\d+)")
FILLING = (
    "(padding)",
    "[PAD]",
    "<|pad|>",
)  # what fills a short text: of words, word pieces, byte pairs
_LABELS = {  # measures of explanations and of their drift
    "topk_jaccard": "Overlap of the top features",
    "spearman": "Rank correlation of importance",
    "sample_cosine": "Cosine, mean over rows",
    "sign_flips": "Signs flipped",
    "top": "Top",
    "n": "Rows",
    "deletion_auc": "Deletion AUC",
    "insertion_auc": "Insertion AUC",
    "random_auc": "Random AUC",
    "randomization_similarity": "Similarity after randomisation",
}


class Explanations(Section):
    """Attributions, how good they are, and how far compression moved them."""

    def explanations(self) -> dict[str, Any]:
        results = {n: r for n in self.names if (r := self.found.explained(n)) is not None}
        base = results.get("base") or next(iter(results.values()), None)
        shown = next((n for n, r in results.items() if r is base), None)
        return {
            "of": shown,
            "why": base["why_method"] if base else "",
            "method": base["method"] if base else None,
            "output": _output(base) if base else "",
            "importance": self._importance(base) if base else None,
            "features": (base or {}).get("features", [])[:TOP_FEATURES],
            "beeswarm": self._beeswarm(shown, base) if base else None,
            "images": self._images(),
            "texts": self._texts(shown),
            "private": self.bundle.private
            and any(v.get("arrays") for v in self.bundle.variants.values()),
            "table": self._explain_table(),
            "quality": self._explain_quality(),
            "notes": [
                f"{text}."
                for text in grouped(
                    (f"{name} by {result['method']}", capital(result["note"]))
                    for name, result in self._explained()
                    if result.get("note")
                )
            ],
            "drift": self._drift(),
            "missing": self._make("explain"),
            "audit_missing": self._uncompared(),
        }

    def _importance(self, result: dict[str, Any]) -> Markup | None:
        """Bars of the most important features; a heat map where the features are patches."""
        features = [row for row in result["features"] if known(row.get("importance"))]
        if not features:
            return None
        places = [PATCH.fullmatch(str(row["name"])) for row in features]
        if all(places):
            cells = [(int(m[1]), int(m[2])) for m in places if m]
            grid = np.zeros(np.max(cells, axis=0) + 1)
            for place, row in zip(cells, features, strict=True):
                grid[place] = max(row["importance"], 0.0)
            drawn = Markup('<img class="heat" src="{}" width="{}" height="{}" alt="{}">').format(
                picture.png(picture.heat(grid)),
                grid.shape[1],
                grid.shape[0],
                f"Mean importance of {grid.size} patches: the stronger, the more important",
            )
            steps = Markup("").join(Markup('<i class="h{}"></i>').format(k) for k in range(5))
            scale = Markup(
                '<p class="ramp"><span>0</span>{}<span>{}, mean size of a patch’s '
                "attribution</span></p>"
            )
            return drawn + scale.format(steps, plain(float(grid.max())))
        return svg.bars(
            "Global importance: mean size of the attributions",
            [
                (str(row["name"]), row["importance"], plain(float(row["importance"])))
                for row in features[:TOP_FEATURES]
            ],
        )

    def _beeswarm(self, name: str | None, result: dict[str, Any]) -> Markup | None:
        """Attributions of single rows, of the predicted class where there are several outputs."""
        arrays = self.bundle.variants[name]["arrays"] if name else None
        if (
            self.bundle.private
            or not arrays
            or "values" not in arrays
            or {"images", "words"} & set(arrays)
        ):
            return None
        values = np.asarray(arrays["values"], dtype=np.float64)
        if values.ndim != 3 or not len(values):
            return None
        outputs = np.asarray(arrays["output"]) if "output" in arrays else np.zeros((len(values), 1))
        chosen = outputs.argmax(axis=1) if values.shape[2] > 1 else np.zeros(len(values), int)
        values = np.take_along_axis(values, chosen[:, None, None], axis=2)[:, :, 0]
        names = [str(clean(str(item))) for item in arrays["names"]]
        display = np.asarray(arrays.get("display", np.full(values.shape, np.nan)), dtype=float)
        picked = np.unique(np.linspace(0, len(values) - 1, min(BEES, len(values))).astype(int))
        order = [names.index(str(f["name"])) for f in result["features"] if f["name"] in names]
        order = order[:TOP_FEATURES] or list(range(min(TOP_FEATURES, len(names))))
        rows = []
        for k in order:
            keep = [i for i in picked if np.isfinite(values[i, k])]
            colours = [
                float(np.clip(display[i, k], 0, 1)) if np.isfinite(display[i, k]) else None
                for i in keep
            ]
            rows.append((names[k], [float(values[i, k]) for i in keep], colours))
        return svg.beeswarm(
            "Attribution of each feature, one dot a row of the test split",
            rows,
            x_label=f"effect on {_output(result)}",
        )

    def _texts(self, name: str | None) -> list[dict[str, Any]] | None:
        """Single texts, each word with how much it spoke for (above 0) or against the output.

        ``level`` is one of -3 to 3: thirds of the largest value among the texts that are shown.
        """
        arrays = self.bundle.variants[name]["arrays"] if name else None
        if self.bundle.private or not arrays or "words" not in arrays:
            return None
        count = len(arrays["truth"])
        values = np.asarray(arrays["values"], dtype=np.float64)[:count, :, 0]
        largest = np.abs(values).max(initial=0.0) or 1.0
        levels = np.rint(3 * values / largest).astype(int)
        return [
            {
                "truth": clean(str(arrays["truth"][k])),
                "predicted": clean(str(arrays["predicted"][k])),
                "words": [
                    {
                        "word": clean(str(word)).removeprefix("##"),
                        "glued": str(word).startswith("##"),  # the rest of the word before
                        "level": int(level),
                        "value": plain(float(value)),
                    }
                    for word, level, value in zip(
                        arrays["words"][k], levels[k], values[k], strict=True
                    )
                    if word not in FILLING
                ],
            }
            for k in range(count)
        ]

    def _images(self) -> dict[str, Any] | None:
        """Exemplars: the input, then what spoke for and against the answer in each variant."""
        if self.bundle.private:
            return None
        stored = [
            (name, arrays)
            for name, found in self.bundle.variants.items()
            for arrays in [found.get("arrays"), *found.get("other_arrays", [])]
            if arrays and {"images", "dense"} <= set(arrays)
        ]
        if not stored:
            return None
        first = stored[0][1]
        same = [(n, a) for n, a in stored if np.array_equal(a["images"], first["images"])]
        several = len({_method(arrays) for _, arrays in same}) > 1
        rows = []
        for k, image in enumerate(first["images"]):
            truth = str(clean(str(first["truth"][k]))) if "truth" in first else ""
            pictures = [
                self._attributed(f"{n} ({_method(a)})" if several else n, a, k) for n, a in same
            ]
            rows.append({"truth": truth, "input": picture.png(image), "pictures": pictures})
        return {
            "rows": rows,
            "several": several,
            "classes": self.task in ("binary", "multiclass"),
            "width": first["images"].shape[2],
            "height": first["images"].shape[1],
        }

    def _attributed(self, name: str, arrays: dict[str, np.ndarray], k: int) -> dict[str, str]:
        """The picture, what the variant said of it, and of which class it is if that is another."""
        predicted = str(arrays["predicted"][k]) if "predicted" in arrays else ""
        outputs = [str(item) for item in arrays.get("outputs", [])]
        dense = arrays["dense"][k][..., 0]  # (h, w), or (h, w, channels)
        if dense.ndim == 3:  # what a pixel did is what its channels did together
            dense = dense.sum(axis=2)
        explained = outputs[int(arrays["targets"][k])] if "targets" in arrays and outputs else ""
        if self.task == "binary" and explained not in ("", predicted):
            dense, explained = -dense, predicted  # the logit is that of the other class
        other = explained if self.task == "multiclass" and explained != predicted else ""
        source = picture.png(picture.overlay(arrays["images"][k], dense))
        return {"src": source, "predicted": clean(predicted), "variant": name,
                "other": clean(other)}  # fmt: skip

    def _explained(self) -> list[tuple[str, dict[str, Any]]]:
        """``(variant, result)`` of every explanation."""
        return [(n, r) for n in self.names for r in self.bundle.variants[n]["explain"] or []]

    def _explain_quality(self) -> Table | None:
        """What was measured of the explanations themselves."""
        results = [(n, r) for n, r in self._explained() if any(map(known, r["quality"].values()))]
        if not results:
            return None
        names = list(
            dict.fromkeys(q for _, r in results for q, v in r["quality"].items() if known(v))
        )
        why = "This quality was not computed for this explanation"
        return Table(
            "How good the explanations are",
            ["Variant", "Method", *(_LABELS.get(q, header(q)) for q in names)],
            [
                [
                    Cell(name),
                    Cell(result["method"] or NONE, _of_split(result)),
                    *(self._number(result["quality"].get(q), why) for q in names),
                ]
                for name, result in results
            ],
            frozenset(range(2, len(names) + 2)),
        )

    def _explain_table(self) -> Table | None:
        results = self._explained()
        if not results:
            return None
        columns = ["Variant", "Method", "Explains", "Rows", "Background", "Additivity error, max",
                   "Additivity error, mean", "Distance from the artefact", "Samples/s"]  # fmt: skip
        rows = []
        for name, result in results:
            error = result.get("error")
            why = error or "This method's values need not sum to the output"
            additivity = result["additivity_error"]
            rows.append(
                [
                    Cell(name),
                    Cell(result["method"] or NONE, error or _of_split(result)),
                    Cell(result["space"]),
                    self._number(result["samples"], error, count),
                    self._number(result["background"], error or "It needs none", count),
                    self._number(additivity.get("max"), why),
                    self._number(additivity.get("mean"), why),
                    self._number(
                        result.get("artifact_gap"), error or "It was not compared with the artefact"
                    ),
                    self._number(result["samples_per_second"], error),
                ]
            )
        return Table(
            "How each variant was explained; errors and distances relative to the output's range",
            columns,
            rows,
            frozenset(range(3, len(columns))),
        )

    def _drift(self) -> Table | None:
        drift = (self.bundle.audit or {}).get("drift") or []
        if not drift:
            return None
        fixed_columns = {"variant", "method", "error", "reason", "ci_low", "ci_high"}
        columns = list(
            dict.fromkeys(
                name
                for row in drift
                for name, value in row.items()
                if name not in fixed_columns and (known(value) or _is_interval(value))
            )
        )
        rows = []
        for row in drift:
            cells = [Cell(str(row.get("variant"))), Cell(str(row.get("method") or NONE))]
            for name in columns:
                value = row.get(name)
                entry = value if isinstance(value, dict) else {"value": value}
                if name == "sample_cosine" and "ci_low" not in entry:  # the row's own interval
                    entry |= {bound: row.get(bound) for bound in ("ci_low", "ci_high")}
                low, high = entry.get("ci_low"), entry.get("ci_high")
                cell = self._number(
                    entry.get("value"), entry.get("reason") or row.get("error") or row.get("reason")
                )
                bounds = f"[{plain(low)}, {plain(high)}]" if known(low) and known(high) else ""
                cells.append(Cell(cell.text, bounds, cell.note))
            rows.append(cells)
        return Table(
            "Drift of the reasons: base's attributions against the variant's, on the same rows",
            [
                "Variant",
                "Method",
                *(_LABELS.get(name, header(name)) for name in columns),
            ],
            rows,
            frozenset(range(2, len(columns) + 2)),
        )


def _of_split(result: dict[str, Any]) -> str:
    return "" if result["split"] == "test" else f"{result['split']} rows"


def _is_interval(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value


def _method(arrays: dict[str, Any]) -> str:
    """The explanation method that made some stored arrays."""
    return clean(str(arrays.get("method", "")))


def _output(result: dict[str, Any]) -> str:
    """What is explained, in words: ``the logit of yes``."""
    names = result.get("output_names") or []
    of = (
        str(names[0])
        if len(names) == 1
        else "each row's predicted class"
        if names
        else "the output"
    )
    return f"the {result['space']} of {clean(of)}"
