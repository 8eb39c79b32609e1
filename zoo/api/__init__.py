"""The Python twin of every command: arguments in, the documents of ``--json`` out.

The only package that knows all components. Imports inside functions are lazy: what a call does not
need is not loaded.
"""

from zoo.api.auditing import DEFAULT_RECIPES, audit, fairness, report
from zoo.api.benchmarking import benchmark, benchmark_model, benchmark_suite
from zoo.api.catalogue import data_clear, data_info, doctor, info, list_data, list_models, runs
from zoo.api.compressing import compress
from zoo.api.explaining import explain
from zoo.api.exporting import export
from zoo.api.generating import generate
from zoo.api.mitigating import mitigate
from zoo.api.reading import compare, evaluate, predict
from zoo.api.sweeping import sweep
from zoo.api.training import resume, train, train_cluster
from zoo.api.tuning import tune, tune_quick

__all__ = [
    "DEFAULT_RECIPES",
    "audit",
    "benchmark",
    "benchmark_model",
    "benchmark_suite",
    "compare",
    "compress",
    "data_clear",
    "data_info",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "fairness",
    "generate",
    "info",
    "list_data",
    "list_models",
    "mitigate",
    "predict",
    "report",
    "resume",
    "runs",
    "sweep",
    "train",
    "train_cluster",
    "tune",
    "tune_quick",
]
