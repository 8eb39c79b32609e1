"""The documents say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import readme_blocks

ROOT = Path(__file__).parent.parent


def test_generated_blocks_are_up_to_date():
    found = set()
    for path, text in readme_blocks.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run: make docs"
        found |= {match[2] for match in readme_blocks.BLOCK.finditer(text)}
    assert found == set(readme_blocks.BLOCKS)


def test_every_command_is_in_the_readme():
    from zoo.cli import cli

    text = readme_blocks.README.read_text(encoding="utf-8")
    for name in cli.commands:
        assert re.search(rf"\bzoo {name}\b|^  {name}  ", text, re.M), name


def test_every_dependency_has_its_reason():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Dependencies")[1].split("##")[0]
    for dependency in project["dependencies"]:
        name = re.match(r"[\w-]+", dependency)[0]
        assert re.search(rf"\b{re.escape(name)}\b", table), f"{name} has no reason"
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in table


def test_links_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]:
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)#\s]+)\)", text):
            if not link.startswith(("http://", "https://")):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=str)
def test_committed_results_say_where_they_come_from(path):
    text = path.read_text(encoding="utf-8")
    document = json.loads(text)
    for row in document if isinstance(document, list) else [document]:
        flat = json.dumps(row)
        assert re.search(r"20\d\d-\d\d-\d\d", flat), "no date"
        assert "tensorflow" in flat or "fairlearn" in flat, "no versions"
        assert re.search(r"device|cpu", flat), "no device"
    assert "/home/" not in text
    assert "/root/" not in text
    assert "/tmp/" not in text


def test_committed_targets_belong_to_the_present_models():
    from zoo.registry import models

    rows = json.loads((ROOT / "benchmarks" / "results" / "targets.json").read_text())
    assert {row["model"] for row in rows} == {s.name for s in models().specs.values() if s.target}
    for row in rows:
        spec = models().get(row["model"])
        assert row["version"] == spec.version, (
            f"{spec.name}: python benchmarks/targets.py {spec.name}"
        )
        assert row["target"] == {"metric": spec.target.metric, "value": spec.target.value}
        assert len(row["seeds"]) >= 5
        assert row["holds"]
