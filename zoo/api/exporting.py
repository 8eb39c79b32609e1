"""Writing variants for other runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import USAGE, ZooError
from zoo.keras_modes import NO_LITERT
from zoo.run import (
    DECISION,
    RUNS,
    Run,
    Variant,
    check_output,
    find_run,
    replace_folder,
    sha256_file,
    write_atomic,
)

if TYPE_CHECKING:
    import numpy as np

    from zoo.train.session import Session

Runner = Callable[["np.ndarray"], "np.ndarray"]


def export(
    text: str,
    format: str = "litert",
    *,
    variant: str = "base",
    batch: int | None = 1,
    output: Path | None = None,
    root: Path = RUNS,
) -> dict[str, Any]:
    """Write variants in a format of :data:`FORMATS`, each with its parity on 256 validation rows.

    A variant that can't be written is a row with its ``error``.
    """
    from zoo.export import require_onnx
    from zoo.train.running import reopen

    run = find_run(text, root)
    chosen = run.select(variant)
    if output is not None and len(chosen) > 1:
        raise ZooError(
            "--output names one place for several variants.",
            expected="one --variant, or no --output",
            received=", ".join(item.name for item in chosen),
        )
    if output is not None:
        check_output(output)
    if format == "onnx":
        require_onnx()  # before anything is loaded
    session = reopen(run)
    results = []
    for item in chosen:
        try:
            results.append(_one(session, run, item, format, batch, output))
        except ZooError as error:
            if error.exit_code == USAGE and variant != "all":
                raise
            said = f"{error.message} {error.received or ''}".strip()
            results.append(_row(item, format, batch, error=said))
    return {"run": str(run.path), "results": results}


def _one(
    session: Session, run: Run, item: Variant, format: str, batch: int | None, output: Path | None
) -> dict[str, Any]:
    from zoo.variants import parity

    if item.document()["needs_groups"]:
        raise ZooError(
            f"Variant {item.name!r} decides by group, which no exported model can.",
            expected="a variant whose answers are the model's own",
            received=item.document()["recipe"],
            hint=f"Export {item.document()['parent']['variant']!r}, and apply "
            f"{item.path / DECISION} to its outputs.",
            kind="needs_groups",
        )
    session = session.of(item)
    model = session.load(item.weights)
    suffix, write, open_it = FORMATS[format]
    rows = {None: "-any", 1: ""}.get(batch, f"-{batch}") if format == "litert" else ""
    target = item.path / f"model{rows}{suffix}" if output is None else output.absolute()
    if target != item.artifact:  # that one is there, and all that was measured is bound to it
        write(session, item, model, batch, target)
    found = _row(
        item,
        format,
        batch,
        path=target.relative_to(run.path).as_posix() if output is None else target.name,
        bytes=sum(f.stat().st_size for f in (target, *target.rglob("*")) if f.is_file()),
        sha256=sha256_file(target),
        parity=parity(session, model, open_it(target)),
        **item.bound(item.artifact),
    )
    item.upsert("export.json", [found], key=("format", "batch", "path"))
    return {**found, "path": str(target)}


def _row(item: Variant, format: str, batch: int | None, **fields: Any) -> dict[str, Any]:
    from zoo.schema import ExportResult

    row = ExportResult(variant=item.name, format=format, batch=batch, **fields)  # type: ignore[arg-type]
    return row.model_dump(mode="json")


def _own_weights(item: Variant, format: str) -> None:
    """Raise :class:`ZooError` for a variant that is converted weights and nothing else."""
    document = item.document()
    if document["kind"] == "transform":
        parent, packed = document["parent"]["variant"], document["runtime"] == "keras"
        why = NO_LITERT if packed else f"{document['recipe']!r} converts them to LiteRT for good"
        raise ZooError(
            f"Variant {item.name!r} can't be written as {format}.",
            expected="a variant with Keras weights of its own",
            received=why,
            hint=f"--variant {parent}" if packed else f"--variant {parent}, or --format litert",
            kind="not_exportable",
        )


def _write_litert(
    session: Session, item: Variant, model: Any, batch: int | None, target: Path
) -> None:
    from zoo.compress.steps import calibration
    from zoo.export import FORMATS as NUMBERS
    from zoo.export import to_litert

    document = item.document()
    if document["runtime"] == "keras":
        _own_weights(item, "a LiteRT file")
    name = document["recipe"].split("+")[-1] if document["kind"] == "transform" else "float32"
    if batch == 1:
        write_atomic(target, item.artifact.read_bytes())
    else:
        samples = calibration(session) if NUMBERS[name].calibrated else None
        write_atomic(target, to_litert(model, name, samples, batch))


def _write_saved_model(
    session: Session, item: Variant, model: Any, batch: int | None, target: Path
) -> None:
    from zoo.export import to_saved_model

    _own_weights(item, "a SavedModel")
    with replace_folder(target, "saved_model.pb") as folder:
        to_saved_model(model, folder, batch)


def _write_onnx(
    session: Session, item: Variant, model: Any, batch: int | None, target: Path
) -> None:
    from zoo.export import to_onnx

    _own_weights(item, "ONNX")
    write_atomic(target, to_onnx(model, batch))


def _open_litert(path: Path) -> Runner:
    from zoo.predict import Artifact

    return Artifact(path)


def _open_saved_model(path: Path) -> Runner:
    from zoo.backend import tf

    function = tf.saved_model.load(str(path)).signatures["serving_default"]
    ((name, spec),) = function.structured_input_signature[1].items()
    return _in_calls(lambda x: function(**{name: tf.constant(x)})["output"].numpy(), spec.shape[0])


def _open_onnx(path: Path) -> Runner:
    import onnxruntime

    opened = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (tensor,) = opened.get_inputs()
    rows = tensor.shape[0] if isinstance(tensor.shape[0], int) else None
    return _in_calls(lambda x: opened.run(None, {tensor.name: x})[0], rows)


def _in_calls(call: Runner, rows: int | None) -> Runner:
    """``call`` for any number of inputs, where it takes ``rows`` of them; the last is filled up."""
    import numpy as np

    def run(inputs: np.ndarray) -> np.ndarray:
        if rows is None:
            return call(inputs)
        parts = [inputs[k : k + rows] for k in range(0, len(inputs), rows)]
        made = [call(np.resize(part, (rows, *part.shape[1:])))[: len(part)] for part in parts]
        return np.concatenate(made)

    return run


#: name -> the file's end, how it is written, how it is run.
FORMATS: dict[str, tuple[str, Callable[..., None], Callable[[Path], Runner]]] = {
    "litert": (".tflite", _write_litert, _open_litert),
    "saved_model": (".saved_model", _write_saved_model, _open_saved_model),
    "onnx": (".onnx", _write_onnx, _open_onnx),
}
