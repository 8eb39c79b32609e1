"""How training steps are executed: compiled by graph or by XLA, and how many in one call.

Which is faster depends on the model and the machine, so ``auto`` measures it, shortly, before the
training, and remembers the figures per model, shape and device. A trial leaves the model as it was.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.train.fused import fused_kernels

#: Steps of one call of the compiled function, unless measured or asked for.
STEPS_PER_CALL = 16
#: Bounds of a measured choice: at most so many steps and about so many seconds a call, since
#: signals are seen between calls.
MOST_STEPS, CALL_SECONDS = 64, 0.25
#: XLA takes seconds to compile, so it is only tried for a training that takes longer than this.
WORTHWHILE_SECONDS = 30.0
#: A trial measures each candidate in so many turns, each a share of the training, but of no less and
#: no more than so many seconds, of at least two steps.
TURNS, TURN_SHARE, TURN_SECONDS = 5, 1 / 500, (0.2, 1.0)
#: XLA must be faster by this factor to be chosen.
MARGIN = 1.05

KINDS = ("graph", "xla")


@dataclass(frozen=True)
class Execution:
    """A way to run steps; ``steps`` is the number of them in one call."""

    kind: str = "graph"
    steps: int = STEPS_PER_CALL

    def __str__(self) -> str:
        return f"{self.kind}:{self.steps}"

    @property
    def xla(self) -> bool:
        """Whether XLA compiles the step."""
        return self.kind == "xla"

    @classmethod
    def parse(cls, text: str) -> Execution | None:
        """``auto`` (None), ``graph``, ``graph:N``, ``xla`` or ``xla:N``."""
        if text == "auto":
            return None
        match = re.fullmatch(r"(graph|xla)(?::([1-9]\d{0,4}))?", text)
        if match is None:
            raise ZooError(
                f"--execution {text!r} is not known.",
                expected="auto, graph, graph:N, xla or xla:N, with N steps a call",
                received=repr(text),
                hint="auto measures which is faster.",
            )
        return cls(match[1], int(match[2] or STEPS_PER_CALL))


#: ``step(iterator, count) -> (steps made, running mean loss)``; see :func:`compile_step`.
Step = Callable[[Any, int], tuple[int, float]]


def compile_step(model: Any, execution: Execution, replicas: Any = None) -> Step:
    """Keras' own ``train_step``, compiled, as a function that makes up to ``count`` steps.

    It stops early at the first step whose loss is not finite, so the step that diverged is known.
    The arithmetic of a step does not depend on how steps are divided into calls. ``replicas`` is
    a :class:`zoo.train.distribution.Replicas`, or None for one device.
    """
    from zoo.backend import tf

    def fused(batch: Any) -> dict[str, Any]:
        with fused_kernels():
            return dict(model.train_step(batch))

    one = fused if replicas is None else replicas.step(model)
    one = tf.function(one, jit_compile=execution.xla or None, reduce_retracing=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def many(iterator: Any, count: Any) -> tuple[Any, Any]:
        def going(made: Any, loss: Any) -> Any:
            return tf.logical_and(made < count, tf.math.is_finite(loss))

        def body(made: Any, loss: Any) -> tuple[Any, Any]:
            logs = one(next(iterator))
            return made + 1, tf.cast(logs["loss"], tf.float32)

        start = (tf.constant(0, tf.int64), tf.constant(0.0))
        return tf.while_loop(going, body, start, parallel_iterations=1)

    def step(iterator: Any, count: int) -> tuple[int, float]:
        made, loss = many(iterator, tf.constant(count, tf.int64))
        return int(made), float(loss)

    return step


@dataclass
class Choice:
    """What was chosen, why, and what was measured; :meth:`document` goes into ``run.json``."""

    execution: Execution
    reason: str
    seconds_per_step: dict[str, float | None]

    def document(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "mode": str(self.execution),
            "reason": self.reason,
            "seconds_per_step": self.seconds_per_step,
        }


def choose(
    model: Any, batches: Callable[[], Any], steps: int, key: str, say: Callable[[str], None]
) -> tuple[Choice, dict[str, Step]]:
    """Measure which execution suits a training of ``steps`` steps.

    Args:
        model: compiled; every variable of it is the same afterwards.
        batches: gives an endless iterator of training batches.
        key: identifies model, shapes, options and device; figures are remembered under it.
        say: told in one line what can't be done.
    Returns the choice, and the compiled steps that were made on the way, by kind.
    """
    known = _remembered().get(key, {})
    figures: dict[str, float | None] = {kind: known[kind] for kind in KINDS if kind in known}
    source = "remembered from an earlier trial" if "graph" in figures else "measured"
    compiled: dict[str, Step] = {}
    note = ""
    if "graph" not in figures:
        figures |= _measure(model, batches, ("graph",), compiled, steps)
    graph = figures["graph"]
    assert graph is not None
    if "xla" not in figures:
        if graph * steps > WORTHWHILE_SECONDS:
            try:
                figures |= _measure(model, batches, KINDS, compiled, steps)
                source = "measured"
            except Exception as error:  # whatever XLA makes of an operation that it lacks
                figures["xla"] = None
                note = f"; XLA can't compile it ({type(error).__name__})"
                say(
                    f"execution: XLA can't compile this model: {' '.join(str(error).split())[:200]}"
                )
        else:
            note = f"; XLA was not tried for about {max(1, round(graph * steps))} s of training"
    _remember(key, figures, say)
    graph, xla = figures["graph"], figures.get("xla")
    assert graph is not None
    faster = xla is not None and graph > MARGIN * xla
    taken = xla if faster and xla is not None else graph
    calls = max(1, min(MOST_STEPS, int(CALL_SECONDS / taken)))
    execution = Execution("xla" if faster else "graph", calls)
    return Choice(execution, source + note, figures), compiled


def _measure(
    model: Any,
    batches: Callable[[], Any],
    kinds: tuple[str, ...],
    compiled: dict[str, Step],
    steps: int,
) -> dict[str, float | None]:
    """Seconds a step of a training of ``steps``: the fastest of turns that alternate between the kinds.

    What disturbs a turn makes it slower, so the fastest says most of the kind itself. All draw from
    one iterator, whose first batches are made before the clock runs.
    """
    from zoo.train.checkpoint import restore, state_of

    before = state_of(model)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    iterator = batches()
    try:
        counts = {}
        for kind in kinds:
            step = compiled.setdefault(kind, compile_step(model, Execution(kind)))
            step(iterator, 2)  # traces, compiles
            began = time.perf_counter()
            step(iterator, 2)
            each = (time.perf_counter() - began) / 2
            seconds = min(max(TURN_SHARE * steps * each, TURN_SECONDS[0]), TURN_SECONDS[1])
            counts[kind] = max(2, int(seconds / each))
        for _ in range(TURNS):
            for kind in kinds:
                times[kind].append(_turn(compiled[kind], iterator, counts[kind]))
    finally:
        restore(model, before)
    return {kind: min(found) for kind, found in times.items()}


def _turn(step: Step, iterator: Any, count: int) -> float:
    """Seconds a step of ``count`` steps, in calls of at most :data:`MOST_STEPS`."""
    done, began = 0, time.perf_counter()
    while done < count:
        made, loss = step(iterator, min(count - done, MOST_STEPS))
        done += made
        if not math.isfinite(loss):  # what diverges stops, and the training will say so
            break
    return (time.perf_counter() - began) / max(done, 1)


def cache_file() -> Path:
    """Where trials are remembered: in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "glasszoo" / "execution.json"


def _remembered() -> dict[str, dict[str, float | None]]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
        return {
            str(key): {kind: row[kind] for kind in KINDS if isinstance(row.get(kind), float)
                       or (kind == "xla" and kind in row and row[kind] is None)}
            for key, row in found.items()
        }  # fmt: skip
    except (OSError, ValueError, AttributeError):
        return {}  # a cache: what can't be read is measured again


def _remember(key: str, figures: dict[str, float | None], say: Callable[[str], None]) -> None:
    from zoo.run import write_atomic

    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {**_remembered(), key: figures}
        write_atomic(path, json.dumps(rows, indent=1))
    except OSError as error:
        say(f"execution: the trial could not be remembered in {path} ({error.strerror})")
