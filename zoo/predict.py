"""Running a variant: its artefact as a function of encoded inputs, and logits as predictions."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zoo.errors import FAILURE, ZooError
from zoo.predictions import Predictions
from zoo.tasks import Example, get_task

if TYPE_CHECKING:
    from zoo.data.table import Data

#: Rows of one call of a compiled Keras model.
COMPILED_BATCH = 1024
#: The entry of a file of packed Keras weights that says which model they are for.
PACKED = "glasszoo"


class Judged(Protocol):
    """Data with the preprocessing of a model: a :class:`zoo.train.session.Session` is one."""

    @property
    def data(self) -> Data: ...
    @property
    def plan(self) -> dict[str, Any]: ...
    def example(self, rows: np.ndarray) -> Example: ...


class Artifact:
    """A ``.tflite`` file as ``f(inputs) -> outputs``, call after call as deployed.

    ``inputs`` float32 (n, *shape) -> float32 (n, outputs). The file says how many rows a call takes
    (ours: one); the last call is filled up.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        from zoo.quiet import quiet

        try:
            with quiet():  # it announces its delegate
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError, OSError) as error:
            raise ZooError(
                f"{path} could not be loaded as a LiteRT model.",
                received=" ".join(str(error).split())[:200],
                kind="bad_artifact",
                exit_code=FAILURE,
            ) from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    @property
    def input_name(self) -> str:
        """The name of the input in the artefact's signature."""
        (signature,) = self._interpreter.get_signature_list().values()
        return signature["inputs"][0]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        interpreter = self._interpreter
        into, out_of = self._input["index"], self._output["index"]
        inputs = np.ascontiguousarray(inputs, dtype=self._input["dtype"])
        outputs = np.empty((len(inputs), *self._output["shape"][1:]), dtype=np.float32)
        rows = self._input["shape"][0]
        for k in range(0, len(inputs), rows):
            part = inputs[k : k + rows]
            filled = part if len(part) == rows else np.resize(part, (rows, *part.shape[1:]))
            interpreter.set_tensor(into, filled)
            interpreter.invoke()
            outputs[k : k + rows] = interpreter.get_tensor(out_of)[: len(part)]
        return outputs


class KerasArtifact:
    """A file of weights that Keras packed, as ``f(inputs) -> outputs`` by Keras.

    The file says which model of the registry they are for, with which config and mode: the model is
    built anew and filled, and nothing but numbers is read. Inputs and outputs as those of
    :class:`Artifact`, any number of rows a call.
    """

    def __init__(self, path: Path) -> None:
        from zoo import keras_modes
        from zoo.backend import seed_everything
        from zoo.registry import models

        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                said = json.loads(str(stored[PACKED]))
                values = [stored[f"{k}"] for k in range(len(stored.files) - 1)]
            config = {k: tuple(v) if isinstance(v, list) else v for k, v in said["config"].items()}
            seed_everything(0)
            self.model = models().get(said["model"]).build(**config)
            keras_modes.rebuild(self.model, said["mode"])
            for weight, value in zip(self.model.weights, values, strict=True):
                if (weight.shape, weight.dtype) != (value.shape, value.dtype.name):
                    raise ValueError(f"{weight.path} is {weight.dtype} {weight.shape}, the file's "
                                     f"{value.dtype} {value.shape}")  # fmt: skip
                weight.assign(value)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise ZooError(
                f"{path} could not be loaded as packed Keras weights.",
                received=" ".join(str(error).split())[:200],
                kind="bad_artifact",
                exit_code=FAILURE,
            ) from error
        keras_modes.calibrated(self.model)
        self._function = compiled(self.model)

    @property
    def input_name(self) -> str:
        """The name of the model's input."""
        return self.model.inputs[0].name.split(":")[0]

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        return self._function(np.ascontiguousarray(inputs, dtype=self.model.inputs[0].dtype))


def pack(model: Any, facts: Mapping[str, Any]) -> bytes:
    """A file of packed weights for :class:`KerasArtifact`; ``facts`` are ``{model, config, mode}``.

    An NPZ of ``model.weights`` in their order: Keras 3.15's own ``save_weights`` leaves the zero points
    of ``gptq`` and ``awq`` out.
    """
    buffer = io.BytesIO()
    weights = {f"{k}": np.asarray(weight) for k, weight in enumerate(model.weights)}
    np.savez(buffer, **weights, **{PACKED: np.array(json.dumps(facts))})  # type: ignore[arg-type]
    return buffer.getvalue()


#: The end of an artefact's name -> the runtime that it is for, and what opens it.
RUNTIMES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    ".tflite": ("litert", Artifact),
    ".npz": ("keras", KerasArtifact),
}


def runtime_of(path: Path) -> str:
    """The runtime that an artefact is for: ``litert`` or ``keras``. Any other name is LiteRT's to refuse."""
    return _opener(path)[0]


def open_artifact(path: Path) -> Artifact | KerasArtifact:
    """An artefact by its runtime, as ``f(inputs) -> outputs`` with its ``input_name``."""
    return _opener(path)[1](path)


def _opener(path: Path) -> tuple[str, Callable[[Path], Any]]:
    return RUNTIMES.get(path.suffix, RUNTIMES[".tflite"])


def compiled(model: Any, batch: int = COMPILED_BATCH) -> Any:
    """A Keras model in inference mode as ``f(inputs) -> outputs``, traced once.

    ``inputs`` float32 (n, *shape) -> float32 (n, outputs); n may be anything.
    """
    from zoo.backend import tf

    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), model.inputs[0].dtype)

    def answer(x: Any) -> Any:
        said = model(x, training=False)  # of a training in mixed precision: halves
        return tf.cast(said, tf.float32) if said.dtype.size < 4 else said

    call = tf.function(answer, input_signature=[spec])

    def function(inputs: np.ndarray) -> np.ndarray:
        parts = [call(inputs[k : k + batch]).numpy() for k in range(0, len(inputs), batch)]
        return np.concatenate(parts)

    return function


def unscale(logits: np.ndarray, plan: dict[str, Any]) -> np.ndarray:
    """Model outputs in the target's own unit: regression models learn standardised values."""
    if "target" not in plan:
        return logits
    return np.asarray(logits, np.float64) * plan["target"]["scale"] + plan["target"]["mean"]


#: Bytes of encoded inputs and outputs that are held at a time.
CALL_BYTES = 2**25


def to_predictions(
    session: Judged, outputs: Any, example: Example, split: str, rows: np.ndarray
) -> Predictions:
    """Predictions for rows of a session's data from the model's outputs (n, ...) for them."""
    data, plan = session.data, session.plan
    task = get_task(data.task)
    if task.judge is not None:
        y_true, y_pred, scores = task.judge(outputs, example, plan)
    else:
        assert task.decode is not None
        y_true = example.labels
        y_pred, scores = task.decode(unscale(outputs, plan))
        y_pred = y_pred.astype(y_true.dtype)
        if scores is None:
            scores = task.sample_score(y_true, y_pred, None)
    return Predictions(
        row=rows,
        y_true=y_true,
        y_pred=y_pred,
        scores=scores,
        classes=data.classes,
        groups={name: np.asarray(v[rows]).astype(np.str_) for name, v in data.groups.items()},
        split=split,
    )


def predict_rows(
    session: Judged, function: Callable[[np.ndarray], np.ndarray], split: str, rows: np.ndarray
) -> Predictions:
    """What a function of encoded inputs says about rows, a part of them at a time.

    Args:
        function: inputs (n, *shape) -> outputs (n, ...), of any n.
    """
    first = session.example(rows[:1]).x
    size = max(1, CALL_BYTES // max(first.nbytes + function(first).nbytes, 1))
    size = size if size < COMPILED_BATCH else size // COMPILED_BATCH * COMPILED_BATCH
    parts, ask = [], get_task(session.data.task).ask
    for k in range(0, len(rows), size):
        some = rows[k : k + size]
        example = session.example(some)
        outputs = function(example.x) if ask is None else ask(function, example, session.plan)
        parts.append(to_predictions(session, outputs, example, split, some))
    return parts[0].joined(parts[1:])


def point_metrics(predictions: Predictions, task: str) -> dict[str, float | None]:
    """Every metric of the task, without intervals; None where undefined."""
    from zoo.metrics import evaluate

    found = {
        name: evaluate(name, predictions.y_true, predictions.y_pred, predictions.scores)
        for name in get_task(task).metrics
    }
    return {name: None if np.isnan(value) else value for name, value in found.items()}
