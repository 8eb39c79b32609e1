"""The report: complete, safe to open, deterministic, and true to the documents."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_fixtures import RECIPES, build, write

from zoo import schema
from zoo.metrics import METRICS
from zoo_report import Bundle, read_bundle, render, svg
from zoo_report.findings import Findings
from zoo_report.render import escape_markdown
from zoo_report.text import METRICS as TEXTS
from zoo_report.text import clean, fixed, interval, measure, plain, probability, times
from zoo_report.view import View

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>1</script>",
    "</title><b>",
    "a | b `c` [x](javascript:alert(1)) ![y](http://evil/)",
    "{{ 7*7 }}{% raw %}",
    "\u202eevil\u202c\u200b\x00\x1b[31m",
    "line\nbreak\r\n# heading",
    "long" * 400,
)


class Page(HTMLParser):
    """Parses strictly enough: balanced tags, and what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def full() -> Bundle:
    return build()


@pytest.fixture(scope="module")
def harmed() -> Bundle:
    return build(harm=0.3)


@pytest.fixture(scope="module")
def images() -> Bundle:
    return build("multiclass", n=1000)


def altered(bundle: Bundle, **changes) -> Bundle:
    return dataclasses.replace(copy.deepcopy(bundle), **changes)


def everywhere(value, text):
    """``text`` in place of every string of a document that is free text to the reader."""
    free = {"name", "group", "attribute", "reason", "why_method", "recipe", "source", "license",
            "error", "expected", "target", "positive", "notes", "classes", "warnings", "git"}  # fmt: skip
    if isinstance(value, dict):
        return {
            key: text if key in free and isinstance(item, str) else everywhere(item, text)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [text if isinstance(item, str) else everywhere(item, text) for item in value]
    return value


@pytest.mark.parametrize("kind", ["full", "harmed", "images"])
def test_page_stands_alone(kind, request):
    page = Page(render(request.getfixturevalue(kind)).html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {
        t for t, _ in page.tags
    }
    for _, attrs in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attrs)
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert re.match(r"#|data:image/png;base64,", attrs.get(name) or "#")
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_security_policy_allows_exactly_this_style(full):
    page = Page(render(full).html)
    policies = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert len(policies) == 1
    assert policies[0].startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:")
    assert len(page.all("style")) == 1


def test_accessible_structure(full):
    page = Page(render(full).html)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))
    assert all("alt" in a for a in page.all("img"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(text, full):
    bundle = Bundle(
        run=everywhere(full.run, text) | {"run": text},
        variants={n: everywhere(v | {"arrays": None}, text) for n, v in full.variants.items()},
        audit=everywhere(full.audit, text),
        log=full.log,
        stale={text: text},
    )
    bundle.run["status"] = "done"
    for found in bundle.variants.values():
        groups = found["fairness"][0]["attributes"]
        found["fairness"][0]["attributes"] = {text: groups["sex"]}
    made = render(bundle)
    page, plain_page = Page(made.html), Page(render(full).html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain_page.tags} | {"code"}
    assert len(page.all("style")) == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    # Fences and code spans show their content as it is; all else has to be escaped.
    outside = re.sub(r"```.*?```", "", made.markdown, flags=re.S)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    for output in (made.html, outside):
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x1b]", output)
        assert "<script" not in output
        assert "<img src=x" not in output
    assert " ".join(clean(text).split())[:60] in page.words
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert not re.search(r"^# heading", outside, re.M)


def test_markdown_is_escaped():
    assert escape_markdown("a|b") == "a&#124;b"
    assert escape_markdown("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert escape_markdown("*x* _y_ `z` [l](u)") == r"\*x\* \_y\_ \`z\` \[l\](u)"
    assert escape_markdown("- item") == r"\- item"
    assert escape_markdown("1. item") == r"\1. item"
    assert "://" not in escape_markdown("see https://example.org")


def test_markdown_tables_are_whole(harmed):
    rows = [line for line in render(harmed).markdown.splitlines() if line.startswith("|")]
    widths, width = [], 0
    for before, line in zip(["", *rows], rows, strict=False):
        if line.startswith("| ---"):
            width = line.count("|")
            assert before.count("|") == width
        widths.append(line.count("|"))
    assert len(rows) > 30
    tables = re.split(r"\n(?!\|)", render(harmed).markdown)
    for table in tables:
        counts = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(counts) <= 1


def test_deterministic(full, images):
    for bundle in (full, images):
        assert render(bundle) == render(copy.deepcopy(bundle))


def test_input_is_not_changed(full):
    before = copy.deepcopy((full.run, full.audit))
    render(full)
    assert (full.run, full.audit) == before


def test_full_report_has_every_section(full):
    made = render(full)
    page = Page(made.html)
    assert {"verdict", "variants", "fairness", "reasons", "training", "limits"} <= {
        attrs.get("id") for attrs in page.all("section")
    }
    for title in ("Verdict", "Model", "Data", "Intended use", "Variants", "Fairness",
                  "Explanations", "Limits", "To measure it again"):  # fmt: skip
        assert f"\n## {title}\n" in made.markdown
    for attribute in ("sex", "race", "age band"):
        assert f"By {attribute}" in page.words
    # 2 scatter, 4 metrics for each of 3 attributes, bars, beeswarm, 2 curves
    assert sum(a.get("class") == "chart" for a in page.all("svg")) == 2 + 4 * 3 + 2 + 2
    assert "zoo train mlp --data adult --set hidden=64,32 --name mlp-adult-demo" in page.words
    assert "zoo audit mlp-adult-demo float16 dynamic int8" in page.words
    assert "2by4" not in page.words


def test_numbers_come_from_the_documents(full):
    page = Page(render(full).html)
    entry = full.variants["base"]["metrics"]["results"][0]["metrics"]["accuracy"]
    low, high = (f"{100 * entry[name]:.1f}" for name in ("ci_low", "ci_high"))
    assert f"{100 * entry['value']:.1f} [{low}, {high}]" in page.words
    women = next(
        g for g in full.variants["base"]["fairness"][0]["attributes"]["sex"]["groups"]
        if g["group"] == "Female"
    )  # fmt: skip
    assert f"n = {women['n']:,}" in page.words
    assert "0.981 [0.974, 0.988]" in page.words


def test_missing_documents_name_their_commands(full):
    base = full.variants["base"] | {
        "metrics": None, "benchmark": [], "explain": [], "fairness": [], "arrays": None,
    }  # fmt: skip
    made = render(Bundle(full.run, {"base": base}))
    for output in (Page(made.html).words, made.markdown):
        for command in ("zoo eval", "zoo benchmark", "zoo explain", "zoo fairness"):
            assert f"{command} mlp-adult-demo --variant base" in output
        assert "zoo audit mlp-adult-demo" in output
    assert "nothing is recommended" in made.markdown


def test_run_without_variants(full):
    run = full.run | {"status": "interrupted", "result": None}
    made = render(Bundle(run))
    assert "zoo train --resume mlp-adult-demo" in Page(made.html).words
    assert "zoo train --resume mlp-adult-demo" in made.markdown
    assert "Training interrupted" in made.markdown


def test_nulls_are_dashes_with_their_reason(full):
    bundle = altered(full)
    bundle.variants["int8"]["metrics"]["results"][0]["metrics"]["roc_auc"] = {
        "value": None, "ci_low": None, "ci_high": None, "reason": "only one class occurs",
    }  # fmt: skip
    bundle.variants["int8"]["benchmark"][0]["latency_ms"] = {"p50": None, "p90": float("nan")}
    made = render(bundle)
    page = Page(made.html)
    note = next(a["id"] for a in page.all("li") if "note" in a.get("id", ""))
    assert note == "note-1"
    assert "only one class occurs" in page.words
    assert "only one class occurs" in made.markdown
    assert not re.search(r"\b(nan|null)\b|\bNone\b(?! of the)", page.words)


def test_failed_variant_is_reported(full):
    bundle = altered(full)
    bundle.variants["int8"]["variant"] |= {
        "error": "calibration failed",
        "bytes": None,
        "metrics": {},
    }
    bundle.variants["int8"] |= {"metrics": None, "benchmark": [], "explain": [], "fairness": []}
    bundle.audit["deltas"] = [r for r in bundle.audit["deltas"] if r["variant"] != "int8"]
    words = Page(render(bundle).html).words
    assert "This variant could not be made or measured: calibration failed" in words
    assert "dynamic is the recommended variant" in words


def test_recipe_that_left_no_folder_is_reported(full):
    bundle = altered(full)
    bundle.audit["variants"] = [
        {
            "variant": "qat",
            "recipe": "qat",
            "kind": "retrain",
            "bytes": None,
            "error": "no such layer",
        }
    ]
    made = render(bundle)
    for output in (Page(made.html).words, made.markdown):
        assert "This variant could not be made or measured: no such layer" in output
        assert "no such layer (qat)" in output.replace("\\", "")


def test_plots_show_the_explanation_in_the_arrays(full):
    bundle = altered(full)
    other = copy.deepcopy(bundle.variants["base"]["explain"][0])
    other |= {"method": "permutation", "created": "2027-01-01T00:00:00+00:00", "features": []}
    bundle.variants["base"]["explain"].append(other)
    bundle.variants["base"]["arrays"]["method"] = np.array("deep")
    view = View(bundle)
    assert view.explanations["method"] == "deep"
    assert [row[1].text for row in view.explanations["table"].rows[:2]] == ["deep", "permutation"]


def test_private_leaves_out_every_exemplar(full, images):
    open_page, closed = (Page(render(altered(full, private=p)).html) for p in (False, True))
    assert any("bee" in (a.get("class") or "") for a in open_page.all("path"))
    assert not any("bee" in (a.get("class") or "") for a in closed.all("path"))
    pictures = [a for a in Page(render(images).html).all("img") if a["class"] == "pixels"]
    assert len(pictures) == 4 * (1 + len(images.variants))
    closed = Page(render(altered(images, private=True)).html)
    assert [a["class"] for a in closed.all("img")] == ["heat"]
    assert "left out on request" in closed.words


def test_pictures_of_every_method_are_shown_and_named(images):
    variants = {
        name: found | {"other_arrays": [found["arrays"] | {"method": np.array("sampled")}]}
        for name, found in images.variants.items()
    }
    page = Page(render(altered(images, variants=variants)).html)
    pictures = [a for a in page.all("img") if a["class"] == "pixels"]
    assert len(pictures) == 4 * (1 + 2 * len(variants))
    assert "base (sampled)" in page.words
    assert "Compare only pictures by the same method." in page.words
    assert "Compare only" not in Page(render(images).html).words


def test_pictures_decode_to_the_input(images):
    from PIL import Image

    page = Page(render(images).html)
    first = next(a for a in page.all("img") if a["class"] == "pixels")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(first["src"].split(",")[1]))))
    np.testing.assert_array_equal(decoded, images.variants["base"]["arrays"]["images"][0, :, :, 0])


def test_stale_documents_are_shown(full):
    made = render(altered(full, stale={"audit.json": "base/model.tflite has changed since"}))
    assert "1 stale document" in made.markdown
    assert "base/model.tflite has changed since" in Page(made.html).words
    assert "The comparison is older than the files beside it" in made.markdown


# The verdict, on rows made by hand


def by_hand(rows, **gate) -> Findings:
    """An int8 variant, 4 times smaller and 2 times faster, with the given changes."""

    def variant(name, size, p90):
        return {
            "variant": schema.VariantDocument(
                variant=name, recipe=name, kind="transform", bytes=size, metrics={"accuracy": 0.8}
            ).model_dump(),
            "metrics": None, "explain": [], "fairness": [], "arrays": None, "log": [],
            "benchmark": [schema.BenchmarkResult(
                run="r", model="m", variant=name, runtime="litert", scenario="SingleStream",
                batch=1, threads=1, valid=True, latency_ms={"p90": p90}).model_dump()],
        }  # fmt: skip

    keys = ("attribute", "group", "n", "metric", "delta", "ci_low", "ci_high", "p_adjusted")
    deltas = [
        {"variant": "int8", "base": 0.8, "value": 0.8 + row[4], **dict(zip(keys, row, strict=True))}
        for row in rows
    ]
    gates = [{"name": "drop", "passed": True, "expected": "<= 0.01", "received": 0.0} | gate]
    run = build(recipes=(), n=500).run
    audit = schema.AuditDocument(
        run="r", report=None, variants=[], deltas=deltas, drift=[], gates=gates,
        noise_floor={"seeds": 3, "metrics": {"accuracy": {"mean": 0.8, "sd": 0.001, "range95": 0.006}}},
        passed=all(g["passed"] for g in gates)).model_dump()  # fmt: skip
    variants = {"base": variant("base", 4000, 0.2), "int8": variant("int8", 1000, 0.1)}
    return Findings(Bundle(run, variants, audit))


CALM = [
    ("(all)", "(all)", 1000, "accuracy", -0.001, -0.003, 0.001, 0.8),
    ("sex", "Female", 400, "accuracy", -0.002, -0.006, 0.002, 1.0),
    ("sex", "Male", 600, "accuracy", 0.0, -0.003, 0.003, 1.0),
]


def test_verdict_without_a_change():
    found = by_hand(CALM)
    assert found.headline() == (
        "int8 is the recommended variant: 4.0 times smaller and 2.0 times faster at p90 than base."
    )
    overall, groups = found.effects(found.outcomes[0])
    assert overall == (
        "Accuracy changed by −0.10 points [−0.30, +0.10] (n = 1,000): not a measurable change "
        "(adjusted p = 0.80), no larger than what training with another seed does (95 % of such "
        "differences are within 0.6 points)."
    )
    assert groups == (
        "No group changed measurably (2 comparisons in 2 groups). The least certain is "
        "sex = Female (n = 400), where the change in accuracy may be anywhere in "
        "[−0.6, +0.2] points."
    )


@pytest.mark.parametrize(
    ("speed", "said"),
    [
        ((1.4, 1.2, 1.6), "4.0 times smaller and 1.40 times faster [1.20, 1.60] than base"),
        ((1.2, 0.9, 1.6), "4.0 times smaller and about as fast [0.90, 1.60] as base"),
        ((0.5, 0.4, 0.8), "4.0 times smaller and 2.00 times slower [1.25, 2.50] than base"),
    ],
)
def test_speed_side_by_side_has_its_interval(speed, said):
    found = by_hand(CALM)
    row = dict(zip(("ratio", "ci_low", "ci_high"), speed, strict=True), rounds=[1.0] * 6)
    found.bundle.audit["variants"] = [{"variant": "int8", "speed": row}]
    assert Findings(found.bundle).headline() == f"int8 is the recommended variant: {said}."


def test_a_group_too_small_for_any_comparison_is_not_called_unchanged():
    small = ("sex", "(missing)", 8, "accuracy", None, None, None, None)
    found = by_hand(CALM)
    row = {**found.deltas[0], **dict(zip(("attribute", "group", "n", "metric", "delta", "ci_low",
           "ci_high", "p_adjusted"), small, strict=True))}  # fmt: skip
    found.bundle.audit["deltas"].append(row)
    (outcome,) = Findings(found.bundle).outcomes
    assert (outcome.groups, outcome.small) == (2, 1)
    told = Findings(found.bundle).effects(outcome)[1]
    assert "(2 comparisons in 2 groups; 1 group too small for any)" in told


def test_verdict_with_harm_in_one_group():
    harm = ("sex", "Female", 90, "true_positive_rate", -0.021, -0.034, -0.008, 0.002)
    found = by_hand([*CALM, harm])
    assert found.recommended is None
    assert found.headline() == "No variant meets the rule, so base stays the recommended one."
    assert found.effects(found.outcomes[0])[1] == (
        "1 measurable loss in groups: true positive rate of sex = Female fell by 2.1 points "
        "[−3.4, −0.8] (n = 90), adjusted p = 0.002."
    )
    assert found.rejection(found.outcomes[0]) == "1 measurable loss in groups"


def test_losses_come_first_and_others_are_counted():
    rows = [
        *CALM,
        ("(all)", "(all)", 90, "true_positive_rate", -0.01, -0.02, -0.005, 0.01),
        ("sex", "Male", 90, "true_positive_rate", -0.02, -0.03, -0.01, 0.001),
        ("sex", "Male", 510, "false_positive_rate", -0.02, -0.03, -0.01, 0.001),
        ("sex", "Male", 600, "selection_rate", -0.02, -0.03, -0.01, 0.001),
    ]
    found = by_hand(rows)
    _, whole, losses, others = found.effects(found.outcomes[0])
    assert whole.startswith("Over all rows, true positive rate fell by 1.0 points [−2.0, −0.5]")
    assert losses.startswith("1 measurable loss in groups: true positive rate of sex = Male fell")
    assert others == "Besides, 1 measurable gain and 1 measurable shift in groups, listed below."


@pytest.mark.parametrize(
    ("metric", "delta", "kind"),
    [
        ("false_positive_rate", 0.02, "losses"),
        ("false_positive_rate", -0.02, "gains"),
        ("true_positive_rate", 0.02, "gains"),
        ("selection_rate", -0.02, "shifts"),
        ("mae", 0.5, "losses"),
    ],
)
def test_direction_decides_what_is_a_loss(metric, delta, kind):
    row = ("sex", "Male", 600, metric, delta, delta - 0.001, delta + 0.001, 0.001)
    outcome = by_hand([*CALM, row]).outcomes[0]
    found = {name: len(getattr(outcome, name)) for name in ("losses", "gains", "shifts")}
    assert found == {"losses": 0, "gains": 0, "shifts": 0} | {kind: 1}


def test_wide_interval_is_not_recommended():
    wide = [("(all)", "(all)", 1000, "accuracy", 0.0, -0.02, 0.02, 1.0), *CALM[1:]]
    found = by_hand(wide)
    assert found.recommended is None
    assert "may have fallen by more than the rule allows" in found.rejection(found.outcomes[0])


def test_a_group_without_any_change_is_not_called_certain():
    rows = [*CALM, ("race", "Other", 30, "accuracy", 0.0, 0.0, 0.0, 1.0)]
    found = by_hand(rows)
    assert found.effects(found.outcomes[0])[1].endswith(
        "The least certain is race = Other (n = 30): nothing changed there, which still allows that "
        "up to 10.0 % of such rows would (rule of three)."
    )


def test_widened_gap_is_told():
    rows = [*CALM, ("sex", "(gap)", 1000, "accuracy_difference", 0.012, 0.004, 0.02, None)]
    found = by_hand(rows)
    assert (
        "The accuracy difference by sex widened by +1.2 points [+0.4, +2.0] (n = 1,000)."
        in found.effects(found.outcomes[0])
    )


def test_failed_gate():
    found = by_hand(CALM, passed=False, received=0.03)
    assert found.gates() == "1 of 1 gate check failed"
    page = Page(render(found.bundle).html)
    assert "drop – failed <= 0.01 0.03" in re.sub(r"\s+", " ", " ".join(page.text))


def test_a_model_without_a_target_is_reported_as_such(full):
    reason = "no target is claimed for alexnet"
    run = {
        **full.run,
        "result": {
            **full.run["result"],
            "target": {
                "metric": None,
                "value": None,
                "reached": None,
                "hit": False,
                "reason": reason,
            },
        },
    }
    assert Findings(dataclasses.replace(full, run=run)).target() == f"Target: {reason}."


def test_target_line(full):
    line = Findings(full).target()
    reached = full.run["result"]["target"]["reached"]
    assert line == (f"Target missed: Accuracy 85.0 % asked, {100 * reached:.1f} % reached.")
    result = full.run["result"]
    other = {"target": {**result["target"], "metric": "roc_auc"},
             "baseline": {"name": "another", "metrics": {"roc_auc": 0.9, "accuracy": 0.847}}}  # fmt: skip
    found = Findings(altered(full, run={**full.run, "result": {**result, **other}}))
    assert found.target().endswith("reached; the baseline (another) reaches 0.900.")


def test_regression_is_judged_by_its_error():
    bundle = build("regression")
    words = Page(render(bundle).html).words
    assert Findings(bundle).main == "mae"
    assert "MAE changed by" in words
    assert "accuracy" not in Findings(bundle).rule


def test_many_variants_and_groups_render():
    bundle = build(recipes=RECIPES, n=2000, harm=0.3)
    page = Page(render(bundle).html)
    assert len([a for a in page.all("svg") if a.get("class") == "chart"]) == 18
    rows = View(bundle).variants["quality"].rows
    assert [row[0].text for row in rows] == list(bundle.variants)


# Reading a folder


def test_folder_reads_back(tmp_path):
    full = build(recipes=("dynamic", "float16", "int8"))  # as a folder sorts them
    bundle = read_bundle(write(full, tmp_path / "run"))
    assert list(bundle.variants) == ["base", "dynamic", "float16", "int8"]
    assert bundle.stale == {}
    assert bundle.audit["deltas"] == json.loads(schema.dump(full.audit))["deltas"]
    np.testing.assert_array_equal(
        bundle.variants["base"]["arrays"]["values"], full.variants["base"]["arrays"]["values"]
    )
    assert render(bundle) == render(full)


def test_changed_and_lost_inputs_are_stale(full, tmp_path):
    folder = write(full, tmp_path / "run")
    (folder / "int8" / "model.tflite").write_bytes(b"other weights")
    (folder / "dynamic" / "model.tflite").unlink()
    stale = read_bundle(folder).stale
    kinds = ("benchmark", "explain", "fairness", "variant")
    assert stale == {
        **{f"dynamic/{kind}.json": "dynamic/model.tflite is gone" for kind in kinds},
        **{f"int8/{kind}.json": "int8/model.tflite has changed since" for kind in kinds},
    }


def test_inputs_outside_the_folder_are_not_read(full, tmp_path):
    folder = write(full, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    run["inputs"] = [{"path": "../../etc/passwd", "sha256": "0"}]
    (folder / "run.json").write_text(json.dumps(run))
    assert read_bundle(folder).stale == {}


def test_broken_files_are_named(full, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        read_bundle(tmp_path)
    folder = write(full, tmp_path / "run")
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"epoch": 15, "loss": 0.1}\n{"epoch": 16, "lo')
    log = read_bundle(folder).log
    assert [row["epoch"] for row in log] == list(range(1, 16))
    assert log[-1]["loss"] == 0.1
    (folder / "base" / "fairness.json").write_text('{"results": [{"variant": "base"}]}')
    with pytest.raises(ValueError, match=r"fairness\.json"):
        read_bundle(folder)
    (folder / "base" / "fairness.json").unlink()
    np.savez(folder / "base" / "explain.npz", values=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"explain\.npz"):
        read_bundle(folder)


# Numbers and scales


def test_metric_texts_agree_with_the_metrics():
    assert set(METRICS) <= set(TEXTS)
    assert {n: TEXTS[n].direction for n in METRICS} == {n: m.direction for n, m in METRICS.items()}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (plain(1234567), "1,234,567"),
        (plain(0.0001234), "1.2e-4"),
        (plain(3.14159), "3.14"),
        (plain(48.2), "48.2"),
        (plain(-0.5), "−0.500"),
        (plain(0.0), "0"),
        (fixed(-0.04, 1), "0.0"),
        (fixed(1234.56, 1, sign=True), "+1,234.6"),
        (measure("accuracy", 0.8534), "85.3"),
        (measure("accuracy", -0.021, change=True), "−2.1"),
        (measure("log_loss", 0.3174), "0.317"),
        (interval("accuracy", 0.848, 0.858), "[84.8, 85.8]"),
        (interval("accuracy", -0.0031, 0.0012, change=True), "[−0.31, +0.12]"),
        (interval("accuracy", None, 0.5), ""),
        (probability(0.0004), "p < 0.001"),
        (times(3.68, "smaller", "larger", "same"), ("3.7", "smaller")),
        (times(0.052, "faster", "slower", "same"), ("19", "slower")),
        (times(0.98, "faster", "slower", "same"), ("", "same")),
        (times(None, "faster", "slower", "same"), ("", "")),
        (clean("a\u202eb\nc"), "a[U+202E]b c"),
    ],
)
def test_texts(told, wanted):
    assert told == wanted


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 1) == [0.0, 0.5, 1.0] or svg.ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    for low, high in ((0.831, 0.869), (-3, 17), (1e-5, 9e-5), (0, 113_000)):
        marks = svg.ticks(low, high)
        assert 2 <= len(marks) <= 8
        assert all(low - 1e-12 <= mark <= high + 1e-12 for mark in marks)
        assert len(set(svg.tick_texts(marks))) == len(marks)
    place = svg.scale(10, 20, 100, 200)
    assert (place(10), place(15), place(20)) == (100, 150, 200)
    assert svg.scale(3, 3, 0, 8)(3) == 4


def test_bars_are_proportional():
    chart = str(svg.bars("t", [("a", 4.0, "4"), ("b", 1.0, "1"), ("<c>", 0.0, "0")]))
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="13"', chart)]
    assert widths[0] == pytest.approx(4 * widths[1], rel=1e-3)
    assert "&lt;c&gt;" in chart


def test_dots_keep_value_inside_its_interval():
    points = [svg.Point(0.5, 0.4, 0.7), svg.Point(None, title="suppressed")]
    chart = str(svg.dots("t", [("a", "n = 9"), ("b", "n = 2")], [(0, points)]))
    start, end = map(
        float, re.search(r'M([\d.]+) [\d.]+L([\d.]+) [\d.]+" class="whisker"', chart).groups()
    )
    centre = float(re.search(r"translate\(([\d.]+)", chart)[1])
    assert (centre - start) / (end - start) == pytest.approx((0.5 - 0.4) / (0.7 - 0.4), abs=0.01)
    assert "suppressed" in chart


def test_the_verdict_on_the_learning_curve_stands_below_it():
    bundle = build()
    text = " ".join(Page(render(bundle).html).text)
    assert "Learning curve: overfitting." in text
    assert "The validation loss rose <b>. What to try:" in text
    assert "--set patience=3 stops earlier" in text
    del bundle.run["result"]["advice"]  # a run from before there was advice
    assert "Learning curve:" not in " ".join(Page(render(bundle).html).text)
