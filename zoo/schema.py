"""Every document that a run holds or that ``--json`` prints, as pydantic models.

Numbers are plain JSON numbers. What cannot be computed is null, with a reason beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.errors import ZooError
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
    params: int | None = None  # variables of the model as it was built; spec's are the published
    loss: dict[str, str] = {}  # units of log.jsonl's losses: training, validation
    options: dict[str, Any]  # resolved training options
    data: dict[str, Any]  # the request, name, kind, task, sha256, sizes, classes, features, groups
    experiment: str
    seed: int
    engine: dict[str, Any] = {}  # how it is run: --execution, --checkpoint-every, --strategy
    command: str | None = None  # the `zoo train` that trains so
    init: dict[str, Any] | None = None  # --init-from: run, path, sha256, layers taken and left
    replicas: int = 1  # devices it was last trained on
    execution: dict[str, Any] = {}  # a measured choice: mode, reason, seconds_per_step
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
    runtime: Literal["litert", "keras"] = "litert"  # what the artefact is for
    bytes: int | None = None
    bytes_gzip: int | None = None
    sparsity: float | None = None
    sparsity_total: float | None = None
    layers: list[dict[str, Any]] = []  # {name, weights, sparsity} for each prunable kernel
    metrics: dict[str, float | None] = {}
    parity: dict[str, Any] | None = None  # {max_abs, n, against}
    model: dict[str, Any] | None = None  # {name, version, config} where it is not the run's own
    needs_groups: bool = False  # answers depend on the group: see decision.json
    randomized: bool = False  # some answers are drawn
    options: dict[str, Any] = {}
    seconds: float | None = None
    error: str | None = None


class ExportResult(Bound):
    """One element of ``export.json``."""

    variant: str
    format: Literal["litert", "saved_model", "onnx"]
    batch: int | None = None  # rows a call; null for any number
    path: str | None = (
        None  # in the run's folder where it lies there; on stdout as it can be opened
    )
    bytes: int | None = None
    sha256: str | None = None
    parity: dict[str, Any] | None = None  # {max_abs, n, against}
    error: str | None = None


class MetricsDocument(Bound):
    """``metrics.json``: metrics of one variant's artefact on each split it was scored on."""

    variant: str
    results: list[dict[str, Any]] = []  # {variant, split, n, artifact, metrics: {name: Interval}}


class BenchmarkResult(Bound):
    run: str | None  # the run's name; on stdout its path
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
    output_names: list[str] = []  # of the outputs; of one that is no class's, what it is of
    note: str | None = None  # which rows were fewer than asked for, and why
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

    run: str  # the run's name; on stdout its path
    report: str | None  # relative to the run's folder; on stdout its path
    variants: list[dict[str, Any]]  # speed: {ratio, ci_low, ci_high, rounds, reason} against base
    deltas: list[dict[str, Any]]
    noise_floor: dict[str, Any]
    drift: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    passed: bool


class SweepDocument(Bound):
    """``sweep.json``: the recipes that were tried on one run, and the one that was taken."""

    run: str  # the run's name; on stdout its path
    report: str | None  # relative to the run's folder; on stdout its path
    split: str  # the rows that losses were judged on
    metric: str
    limits: dict[str, float]
    prefer: str
    chosen: str | None
    #: {variant, recipe, runtime, bytes, bytes_gzip, p90_ms, value, drop, worst_group, worst_group_drop, test,
    #: front, missed, error}, base among them
    results: list[dict[str, Any]]


class ResultList(Model):
    """A file of results keyed by method, split and settings (benchmark, explain, fairness)."""

    schema_version: int = SCHEMA_VERSION
    results: list[dict[str, Any]] = []


def dump(document: BaseModel | dict | list) -> str:
    """A document as JSON text; non-finite numbers become null."""
    if isinstance(document, BaseModel):
        document = document.model_dump(mode="json")
    return dumps(document) + "\n"


class DocumentError(ZooError, ValueError):
    """A document that is not what its name says."""

    def __init__(self, path: Path, expected: str, received: str, hint: str) -> None:
        super().__init__(
            f"{path} could not be read.",
            expected=expected,
            received=received,
            hint=hint,
            kind="bad_document",
        )


def load(path: Path, model: type[BaseModel]) -> Any:
    """Read and migrate a document.

    Raises :class:`DocumentError`, which is a ``ValueError`` too, for a file that is missing, damaged,
    of a newer schema, or does not fit ``model``.
    """
    damaged = "The file is damaged: restore it, or make it again with the command that wrote it."
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(
            path, "a readable file", error.strerror or str(error), damaged
        ) from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DocumentError(path, "JSON", f"{error}", damaged) from error
    if not isinstance(raw, dict):
        raise DocumentError(path, "a JSON object", f"a {type(raw).__name__}", damaged)
    version = raw.get("schema_version", 0)
    if not isinstance(version, int):
        raise DocumentError(path, "a whole number as schema_version", repr(version), damaged)
    if version > SCHEMA_VERSION:
        raise DocumentError(
            path,
            f"schema version {SCHEMA_VERSION} at most",
            f"schema version {version}",
            "It was written by a newer Glasszoo: pip install --upgrade glasszoo",
        )
    for old in range(version, SCHEMA_VERSION):
        raw = MIGRATIONS[old](raw) if old in MIGRATIONS else raw
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise DocumentError(path, f"the fields of a {model.__name__}", wrong, damaged) from error


#: version -> function that lifts a raw document of it to the next one.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
