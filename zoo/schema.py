"""Every document that a run holds or that ``--json`` prints, as pydantic models.

Numbers are plain JSON numbers. What cannot be computed is null, with a reason beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from zoo.jsontext import dumps

SCHEMA_VERSION = 1


class Model(BaseModel):
    model_config = ConfigDict(extra="allow", ser_json_inf_nan="null", protected_namespaces=())


class Input(Model):
    """A file that a document was computed from; ``path`` is relative to the run's folder."""

    path: str
    sha256: str


class Bound(Model):
    """What every stored document carries beside its own fields."""

    schema_version: int = SCHEMA_VERSION
    inputs: list[Input] = []
    environment: dict[str, Any] = {}
    created: str = ""


class Interval(Model):
    """A measured value with a 95 % interval; all null (and a ``reason``) where undefined."""

    value: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


class TargetResult(Model):
    metric: str
    value: float
    reached: float | None
    hit: bool
    reason: str | None = None  # set where the target does not apply (own data)


class RunDocument(Bound):
    """``run.json``."""

    run: str
    spec: dict[str, Any]  # name, version, family, task, structure (hash), source, license
    config: dict[str, Any]  # resolved arguments of build()
    options: dict[str, Any]  # resolved training options
    data: dict[str, Any]  # the request, name, kind, task, sha256, sizes, classes, features, groups
    experiment: str
    seed: int
    versions: dict[str, str] = {}
    device: dict[str, Any] = {}
    git: str | None = None
    status: Literal["training", "done", "interrupted", "failed"]
    progress: dict[str, Any] = {}
    result: dict[str, Any] | None = None  # what `zoo train --json` prints, once done


class VariantDocument(Bound):
    """``variant.json``, and one element of what ``zoo compress --json`` prints."""

    variant: str
    recipe: str
    kind: Literal["base", "transform", "retrain"]
    parent: dict[str, str] | None = None  # {variant, sha256}
    artifact: str | None = None
    bytes: int | None = None
    bytes_gzip: int | None = None
    sparsity: float | None = None
    sparsity_total: float | None = None
    layers: list[dict[str, Any]] = []  # {name, weights, sparsity} for each prunable kernel
    metrics: dict[str, float | None] = {}
    parity: dict[str, Any] | None = None  # {max_abs, n, against}
    needs_groups: bool = False
    options: dict[str, Any] = {}
    seconds: float | None = None
    error: str | None = None


class MetricsDocument(Bound):
    """``metrics.json``: metrics of one variant's artefact on each split it was scored on."""

    variant: str
    results: list[dict[str, Any]] = []  # {variant, split, n, artifact, metrics: {name: Interval}}


class BenchmarkResult(Bound):
    run: str | None
    model: str
    variant: str
    runtime: str  # "litert"
    scenario: str  # "SingleStream" | "Offline"
    batch: int
    threads: int
    valid: bool
    reason: str | None = None
    queries: int | None = None
    seconds: float | None = None
    latency_ms: dict[str, float | None] = {}  # mean, p50, p90, p99
    throughput: float | None = None  # samples a second
    peak_memory_mb: float | None = None
    load_ms: float | None = None
    bytes: int | None = None
    bytes_gzip: int | None = None
    metrics: dict[str, float | None] = {}
    error: str | None = None


class ExplainResult(Bound):
    variant: str
    method: str | None
    why_method: str
    space: str  # "logit", "value"
    split: str = "test"
    artifact: str | None = None
    samples: int | None = None
    background: int | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    additive: bool | None = None
    additivity_error: dict[str, float | None] = {}  # max, mean; relative to the output's spread
    features: list[dict[str, Any]] = []  # {name, importance}, most important first
    quality: dict[str, float | None] = {}
    error: str | None = None


class FairnessResult(Bound):
    variant: str
    split: str
    task: str
    positive: str | None
    attributes: dict[str, Any] = {}
    intersections: list[dict[str, Any]] = []
    warnings: list[str] = []
    artifact: str | None = None
    error: str | None = None


class AuditDocument(Bound):
    """``audit.json``: the variants of one run against its base."""

    run: str
    report: str | None
    variants: list[dict[str, Any]]
    deltas: list[dict[str, Any]]
    noise_floor: dict[str, Any]
    drift: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    passed: bool


class ResultList(Model):
    """A file of results keyed by method, split and settings (benchmark, explain, fairness)."""

    schema_version: int = SCHEMA_VERSION
    results: list[dict[str, Any]] = []


def dump(document: BaseModel | dict | list) -> str:
    """A document as JSON text; non-finite numbers become null."""
    if isinstance(document, BaseModel):
        document = document.model_dump(mode="json")
    return dumps(document) + "\n"


def load(path: Path, model: type[BaseModel]) -> Any:
    """Read and migrate a document. Raises ``ValueError`` naming the file when it does not fit."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    version = raw.get("schema_version", 0)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}; this Glasszoo reads up to {SCHEMA_VERSION}"
        )
    return model.model_validate(MIGRATIONS.get(version, lambda document: document)(raw))


MIGRATIONS: dict[int, Any] = {}  # version -> function that lifts a raw document to the next one
