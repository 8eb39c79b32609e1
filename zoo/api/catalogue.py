"""What there is: models, data sets, runs, and the installation itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.environment import installed, memory_bytes
from zoo.errors import ZooError
from zoo.run import RUNS, list_runs

if TYPE_CHECKING:
    from zoo.data.table import Request


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """One document a model, sorted by name; a broken plugin is ``{name, error}``."""
    from zoo.registry import models

    registry = models()
    rows = [spec.document() for spec in registry.glob(pattern)]
    return rows + [{"name": item.name, "error": item.error} for item in registry.broken]


def info(name: str, summary: bool = False) -> dict[str, Any]:
    """A model's document with its config; with ``summary`` also its layers."""
    from zoo.registry import models
    from zoo.train.options import TrainOptions
    from zoo.train.search import search_space

    spec = models().get(name)
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in spec.config.items()}
    training = TrainOptions.parse(dict(spec.train)).document()
    search = {key: list(row) for key, row in search_space(spec).items()}
    document = {**spec.document(), "config": config, "training": training, "search": search}
    if summary:
        model = spec.build(**spec.config)
        document["layers"] = [
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "output": [str(size) for size in layer.output.shape],
                "params": int(layer.count_params()),
            }
            for layer in model.layers
        ]
    return document


def list_data() -> list[dict[str, Any]]:
    """One document a data set that has a name."""
    from zoo.registry import datasets

    registry = datasets()
    rows = [spec.document() for spec in registry.glob(None)]
    return rows + [{"name": item.name, "error": item.error} for item in registry.broken]


def data_info(request: Request) -> dict[str, Any]:
    """A data set's document; what it would be split and grouped into, for supported kinds."""
    from zoo.data.core import open_data
    from zoo.data.online import collection_of, kept
    from zoo.registry import datasets
    from zoo.tasks import TASKS

    spec = datasets().specs.get(request.data)
    document = {} if spec is None else spec.document()
    if spec is None or spec.task in TASKS:
        data = open_data(request)
        found = data.describe()
        document |= {
            "name": data.name,
            "kind": data.kind,
            "rows": found["rows"],
            "task": data.task,
            "classes": found["classes"],
            "groups": list(data.groups),
            "features": len([c for c in data.columns if c["used"]]) or _size(data.x.shape[1:]),
            "license": data.license,
            "source": data.source,
            "sha256": data.sha256,
            "offline": collection_of(request.data) is None,
            "sizes": found["sizes"],
            "class_counts": found["class_counts"],
            "positive": data.positive,
            "group_counts": found["groups"],
            "columns": data.columns,
            "notes": data.notes,
            "cache": None if data.cache is None else str(data.cache),
        }
        if spec is None:
            path = Path(request.data)
            if collection_of(request.data):
                path = kept(request.data)
                document["cache"] = document["cache"] or str(path)
            files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            document["bytes"] = sum(p.stat().st_size for p in files)
    return document


def data_clear() -> dict[str, Any]:
    """Remove what was fetched or converted into the cache: ``{cache, removed, bytes}``."""
    from zoo.data.shards import cache_root, clear

    removed, size = clear()
    return {"cache": str(cache_root()), "removed": removed, "bytes": size}


def _size(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def runs(root: Path = RUNS) -> list[dict[str, Any]]:
    """One document a run, oldest first; a damaged one is ``{run, name, error}``."""
    rows = []
    for run in list_runs(root):
        row: dict[str, Any] = {"run": str(run.path), "name": run.name}
        try:
            document = run.document()
        except ZooError as error:
            rows.append({**row, "status": "damaged", "error": error.message})
            continue
        result = document["result"] or {}
        rows.append(
            {
                **row,
                "model": document["spec"]["name"],
                "data": document["data"]["name"],
                "status": run.status,
                "created": document["created"],
                "seed": document["seed"],
                "metrics": result.get("metrics", {}),
                "variants": run.variants(),
            }
        )
    return rows


def doctor() -> dict[str, Any]:
    """What the installation stands on, and what is wrong with it."""
    import importlib.util
    import os
    import platform

    problems = []
    try:
        from zoo.backend import device
        from zoo.environment import versions

        packages, found = versions(), device()
    except (ImportError, ZooError) as error:
        packages, found = {}, {}
        why = " ".join(str(error).split())
        problems.append(f"TensorFlow or Keras can't be imported: {why}")
    for module, package in (
        ("mlperf_loadgen", "mlcommons-loadgen"),
        ("ai_edge_litert", "ai-edge-litert"),
        ("shap", "shap"),
        ("fairlearn", "fairlearn"),
        ("tensorflow_model_optimization", "tensorflow-model-optimization"),
    ):
        if importlib.util.find_spec(module) is None:
            problems.append(f"{package} is not installed: pip install {package}")
    if installed("tensorflow-cpu") and installed("tensorflow"):
        problems.append("tensorflow-cpu is installed beside tensorflow: uninstall it")
    memory = memory_bytes()
    return {
        "python": platform.python_version(),
        "packages": packages,
        "devices": found,
        "cpus": os.cpu_count(),
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "problems": problems,
    }
