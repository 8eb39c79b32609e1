"""Who the workers of a cluster are, as different launchers say it, turned into ``TF_CONFIG``.

Kubeflow's TFJob, Vertex AI and Ray set ``TF_CONFIG`` themselves. Slurm and indexed jobs of Kubernetes
(a TrainJob's, too) set variables of their own. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: The first port of a job's workers; Slurm's jobs each get some of the many above it.
PORT, PORTS = 20_000, 20_000


@dataclass(frozen=True)
class Resolver:
    """One launcher: the variables it needs, and ``resolve(environment)``: (workers, own rank)."""

    name: str
    needs: tuple[str, ...]
    resolve: Callable[[Mapping[str, str]], tuple[list[str], int]]


def _bracketed(text: str) -> list[str]:
    """``01-03,7`` -> 01, 02, 03, 7."""
    found = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if dash:
            found += [f"{k:0{len(low)}d}" for k in range(int(low), int(high) + 1)]
        else:
            found.append(low)
    return found


def hosts_of(nodelist: str) -> list[str]:
    """Slurm's ``node[01-03,7],gpu1`` as names, in order. Raises ``ValueError`` for another form."""
    hosts: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        match = re.fullmatch(r"([^\[\]]*)(?:\[([\d,-]+)\]([^\[\]]*))?", part)
        if match is None:
            raise ValueError(f"{part!r} is no list of nodes")
        middle = _bracketed(match[2]) if match[2] else [""]
        hosts += [f"{match[1]}{text}{match[3] or ''}" for text in middle]
    return hosts


def tasks_of(text: str) -> list[int]:
    """Slurm's ``2(x3),1`` as 2, 2, 2, 1. Raises ``ValueError`` for another form."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"{part!r} is no number of tasks")
        found += [int(match[1])] * int(match[2] or 1)
    return found


def _slurm(environment: Mapping[str, str]) -> tuple[list[str], int]:
    """The tasks of a step, ``srun``'s, node by node; ports differ between jobs of one node."""
    hosts = hosts_of(environment["SLURM_STEP_NODELIST"])
    tasks = tasks_of(environment["SLURM_STEP_TASKS_PER_NODE"])
    if len(hosts) != len(tasks):
        raise ValueError(f"{len(hosts)} nodes and tasks for {len(tasks)}")
    first = PORT + int(environment["SLURM_JOB_ID"]) * 64 % PORTS
    workers = [
        f"{host}:{first + k}" for host, n in zip(hosts, tasks, strict=True) for k in range(n)
    ]
    return workers, int(environment["SLURM_PROCID"])


def _kubernetes(environment: Mapping[str, str]) -> tuple[list[str], int]:
    """The pods of an indexed job, whose names ``ZOO_WORKERS`` lists, commas between them."""
    names = [name.strip() for name in environment["ZOO_WORKERS"].split(",") if name.strip()]
    workers = [name if ":" in name else f"{name}:{PORT}" for name in names]
    return workers, int(environment["JOB_COMPLETION_INDEX"])


RESOLVERS = (
    Resolver(
        "Slurm",
        ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"),
        _slurm,
    ),
    Resolver("Kubernetes", ("JOB_COMPLETION_INDEX", "ZOO_WORKERS"), _kubernetes),
)


def tf_config(environment: Mapping[str, str]) -> str | None:
    """``TF_CONFIG`` as it is, or as a launcher's variables say it; None where none does.

    Raises ``ValueError`` when variables are there and make no sense.
    """
    if environment.get("TF_CONFIG"):
        return environment["TF_CONFIG"]
    for row in RESOLVERS:
        if all(environment.get(name) for name in row.needs):
            workers, rank = row.resolve(environment)
            if not 0 <= rank < len(workers):
                raise ValueError(f"{row.name} says {len(workers)} workers and number {rank}")
            return json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
            )
    return None
