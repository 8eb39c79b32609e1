"""What a result was computed with: versions and the processor. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from typing import Any

PACKAGES = ("tensorflow", "keras", "keras-hub", "keras-nlp", "tensorflow-model-optimization",
            "tf-keras", "ai-edge-litert", "shap", "fairlearn", "scikit-learn", "numpy", "pandas",
            "mlcommons-loadgen")  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in ("glasszoo", *PACKAGES):
        if (version := installed(name)) is not None:
            found[name] = version
    return found


def installed(package: str) -> str | None:
    """The version of an installed package; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def measured(**packages: str) -> dict[str, Any]:
    """What a committed result says of itself: device, cores, versions (more by name) and date."""
    return {
        "device": cpu_model(),
        "cores": os.cpu_count(),
        "versions": {**versions(), **packages},
        "created": now(),
    }


def memory_bytes() -> int | None:
    """The machine's memory; None where the system does not say."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_model() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
