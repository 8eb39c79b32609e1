"""Run and variant directories: the only module that writes them, and always by rename.

A reader never sees a half-written file or folder: each is made under a name that starts with
``.tmp-`` beside its target, flushed, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import FAILURE, USAGE, ZooError, clip, unknown

if TYPE_CHECKING:
    import numpy as np

    from zoo.predictions import Predictions

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
BASE = "base"
DECISION = "decision.json"
TRAINING = ".training.lock"  # held by the process that trains a run
#: Where runs live unless told otherwise.
RUNS = Path("runs")
SALT = 4  # random bytes in the name of what is not finished


def sha256_file(path: Path, files: Iterable[Path] | None = None) -> str:
    """SHA-256 of a file's bytes, hexadecimal; of a folder, of those ``files`` in it or of all, by name."""
    if path.is_dir():
        found = path.rglob("*") if files is None else files
        entries = sorted(item for item in found if item.is_file())
        text = "\n".join(f"{item.relative_to(path)} {sha256_file(item)}" for item in entries)
        return hashlib.sha256(text.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form, hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def check_name(name: str, what: str = "run name") -> str:
    """``name`` itself when it can be a folder's name, else a :class:`ZooError`."""
    if not NAME.fullmatch(name) or name.startswith(".") or name == "latest":
        shown = clip(repr(name), 80)
        raise ZooError(
            f"{shown} can't be a {what}.",
            expected="letters, digits, '.', '_' and '-', starting with a letter or digit, "
            "at most 100 of them, and not 'latest'",
            received=shown,
            hint="--runs DIR chooses the folder, --name only the name inside it."
            if what == "run name"
            else "Choose another name: it becomes a folder's.",
            kind="bad_name",
        )
    return name


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is there whole or not at all, even across a power cut."""
    temporary = path.with_name(f".tmp-{path.name}-{secrets.token_hex(SALT)}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(target: Path, replace: Path | None = None) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` by rename when the block ends without error.

    Raises :class:`ZooError` when ``target`` exists already, unless ``replace`` names the path to
    which the present one is moved first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(SALT)}")
    temporary.mkdir()
    try:
        yield temporary
        for item in temporary.rglob("*"):
            if item.is_file():
                with item.open("rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(temporary)
        if replace is not None and target.exists():
            target.rename(replace)
        try:
            if target.is_dir():  # renaming would replace an empty one without a word
                raise FileExistsError(str(target))
            temporary.rename(target)
        except OSError as error:
            if target.exists():
                raise exists_already(target) from error
            raise
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replace_folder(target: Path, sign: str) -> Iterator[Path]:
    """A temporary folder that takes the place of ``target`` when the block ends without error.

    ``target`` may exist only as a folder that holds the file ``sign``: one of the same kind.
    """
    if target.exists() and not (target / sign).is_file():
        raise exists_already(target)
    with new_folder(target) as folder:
        yield folder
        if target.exists():
            shutil.rmtree(target)


def _sweep(parent: Path, name: str) -> None:
    """Remove what a process that was killed left of a folder that it made; its lock is held."""
    for left in parent.glob(f".tmp-{name}-" + 2 * SALT * "[0-9a-f]"):  # of no longer name's
        shutil.rmtree(left, ignore_errors=True)


def exists_already(target: Path) -> ZooError:
    """The error for a run or a variant whose name is taken; its hint says what can be done."""
    if (target / "run.json").exists():
        hint = f"Choose another --name, or continue it: zoo train --resume {target}"
    elif (target.parent / "run.json").exists():
        hint = f"It holds no whole variant: remove the folder {target} and make it again."
    else:
        hint = f"Remove {target} first."
    return ZooError(
        f"{target} exists already.",
        expected="a name that is not taken",
        received=target.name,
        hint=hint,
        kind="run_exists",
    )


def check_output(path: Path) -> Path:
    """``path`` itself where a file of the user's choice can be written, else a :class:`ZooError`."""
    if path.exists() or path.is_symlink():
        raise ZooError(
            f"{path} exists already.",
            expected="an --output that is not there yet",
            received=str(path),
            hint=f"Choose another --output, or remove {path} first.",
            kind="file_exists",
        )
    return path


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock", wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock: two commands never rewrite the same document at once.

    The system releases it when the process ends, however it ends. Raises ``BlockingIOError`` when
    it is held by another and ``wait`` is false.
    """
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def read_json(path: Path) -> Any:
    """A JSON file of a run. Raises :class:`ZooError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{path} could not be read.",
            expected="a JSON file, as the training wrote it",
            received=str(error),
            hint="The run is damaged: restore the file, or train again.",
            kind="bad_document",
        ) from error


class Variant:
    """One variant's folder of a run."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name, self.path = run, name, run.path / name

    def document(self) -> dict[str, Any]:
        """``variant.json``."""
        from zoo.schema import VariantDocument, load

        return load(self.path / "variant.json", VariantDocument).model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """Identity of the variant: the hash of its ``variant.json``."""
        return sha256_file(self.path / "variant.json")

    @functools.cached_property
    def artifact(self) -> Path:
        """The file that is measured.

        Raises :class:`ZooError` when the variant has none, or when it is no longer the file that
        ``variant.json``, the metrics and the predictions were made from.
        """
        document = self.document()
        if document["artifact"] is None:
            raise ZooError(
                f"Variant {self.name!r} of run {self.run.name!r} has no artefact to measure.",
                received=document.get("error") or "no artifact in variant.json",
                hint="Measure another variant, or make it again with `zoo compress`.",
                kind="no_artifact",
            )
        return self._made_with(document, document["artifact"])

    def decision(self) -> dict[str, Any] | None:
        """``decision.json``: how the artefact's outputs become answers, by group; None of most variants.

        Raises :class:`ZooError` when it is no longer the file that the predictions were made with.
        """
        document = self.document()
        if not document["needs_groups"]:
            return None
        return read_json(self._made_with(document, DECISION))

    def _made_with(self, document: Mapping[str, Any], file: str) -> Path:
        """A file of the variant, the one that ``variant.json`` names with its hash."""
        path = self.path / file
        name = path.relative_to(self.run.path).as_posix()
        made = {entry["path"]: entry["sha256"] for entry in document["inputs"]}.get(name)
        found = sha256_file(path) if path.is_file() else None
        if found is None or made not in (None, found):
            raise ZooError(
                f"{path} is not the file that variant {self.name!r} was made with.",
                expected=f"SHA-256 {str(made)[:16]}...",
                received="no such file" if found is None else f"SHA-256 {found[:16]}...",
                hint="Restore it, or train the model again."
                if self.name == BASE
                else f"Remove the folder {self.path} and make it again: "
                f"zoo compress {self.run.path} {document['recipe']}",
                kind="changed_artifact",
            )
        return path

    @property
    def weights(self) -> Path:
        """The Keras weights of this variant, or of the nearest ancestor that has its own."""
        own = self.path / "model.weights.h5"
        if own.exists():
            return own
        document = self.document()
        if document["kind"] == "transform" and document["parent"] is not None:
            return self.run.variant(document["parent"]["variant"]).weights
        raise ZooError(
            f"Variant {self.name!r} of run {self.run.name!r} has lost its weights.",
            expected=str(own),
            received="no such file",
            hint="Restore the file, or train the model again."
            if self.name == BASE
            else f"Remove the folder {self.path} and make it again: "
            f"zoo compress {self.run.path} {document['recipe']}",
            kind="missing_weights",
        )

    def inputs(self, *paths: Path) -> list[dict[str, str]]:
        """``[{path, sha256}]`` of files, relative to the run's folder; the decision goes with an artefact
        whose answers it makes."""
        own = self.path / DECISION
        paths = (*paths, own) if self.path in {p.parent for p in paths} and own.exists() else paths
        return [
            {"path": os.path.relpath(path, self.run.path), "sha256": sha256_file(path)}
            for path in paths
        ]

    def bound(self, *paths: Path) -> dict[str, Any]:
        """What every stored result carries: schema version, inputs, environment, time."""
        from zoo.environment import now, versions
        from zoo.schema import SCHEMA_VERSION

        return {
            "schema_version": SCHEMA_VERSION,
            "inputs": self.inputs(*paths),
            "environment": versions(),
            "created": now(),
        }

    def results(self, file: str) -> list[dict[str, Any]]:
        """The results held in a document such as ``benchmark.json``; none if there is no file."""
        from zoo.schema import ResultList, load

        path = self.path / file
        return load(path, ResultList).results if path.exists() else []

    def upsert(
        self,
        file: str,
        results: list[dict[str, Any]],
        key: tuple[str, ...],
        merge: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """Put results into a document, each in place of the one with the same values of ``key``.

        ``merge(new, old)`` gives what is kept of both; the new one alone otherwise.
        """
        from zoo.schema import ResultList, dump

        def identity(result: dict[str, Any]) -> tuple:
            return tuple(json.dumps(result.get(name), sort_keys=True) for name in key)

        with locked(self.path):
            merged = {identity(result): result for result in self.results(file)}
            for result in results:
                old = merged.get(identity(result))
                kept = result if merge is None or old is None else merge(result, old)
                merged[identity(result)] = kept
            write_atomic(self.path / file, dump(ResultList(results=list(merged.values()))))

    def predictions(self, split: str = "test") -> Predictions:
        """The stored predictions on a split. Raises :class:`ZooError` when there are none."""
        from zoo.predictions import Predictions

        folder = self.artifact.parent  # raises for one that has changed since they were made
        self.decision()  # so does this
        path = folder / predictions_file(split)
        hint = f"zoo predict {self.run.path} --variant {self.name} --split {split}"
        if not path.exists():
            raise ZooError(
                f"There are no predictions of variant {self.name!r} on split {split!r}.",
                expected=str(path),
                received="no such file",
                hint=hint,
                kind="missing_predictions",
            )
        try:
            return Predictions.load(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ZooError(
                f"{path} could not be read.",
                expected="predictions as `zoo predict` writes them",
                received=f"{type(error).__name__}: {error}",
                hint=f"Make them again: {hint}",
                kind="bad_document",
            ) from error

    def write_predictions(
        self, predictions: Predictions, more: Mapping[str, np.ndarray] | None = None
    ) -> Path:
        """Store predictions, and ``more`` arrays beside them; returns the file's path."""
        path = self.path / predictions_file(predictions.split)
        write_arrays(path, {**predictions.arrays(), **(more or {})})
        return path


def predictions_file(split: str) -> str:
    """``predictions.npz`` for the test split, ``predictions-SPLIT.npz`` for another."""
    return "predictions.npz" if split == "test" else f"predictions-{split}.npz"


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed ``.npz`` atomically; object arrays are refused."""
    import numpy as np

    refused = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if refused:
        raise TypeError(f"object arrays can't be stored without pickle: {refused}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


class Run:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).resolve()
        self.name = self.path.name

    def document(self) -> dict[str, Any]:
        """``run.json``, migrated to the present schema."""
        from zoo.schema import RunDocument, load

        return load(self.path / "run.json", RunDocument).model_dump(mode="json")

    def plan(self) -> dict[str, Any]:
        """``preprocess.json``: how inputs become arrays."""
        return read_json(self.path / "preprocess.json")

    @property
    def status(self) -> str:
        """The training's status; "interrupted" for one whose process is gone (`kill -9`)."""
        status = self.document()["status"]
        if status == "training":
            # held by the training, or a folder that one may only read
            with contextlib.suppress(OSError), locked(self.path, TRAINING, wait=False):
                return "interrupted"
        return status

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Hold the run for a training. Raises :class:`ZooError` when another process trains it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path, TRAINING, wait=False))
            except BlockingIOError as error:
                raise ZooError(
                    f"Run {self.name!r} is being trained by another process.",
                    expected="one training at a time",
                    received=f"{self.path / TRAINING} is held",
                    hint="Wait for it, or end it first.",
                    kind="run_busy",
                ) from error
            _sweep(self.path, BASE)
            yield

    def update(self, **changes: Any) -> None:
        """Change fields of ``run.json``."""
        from zoo.schema import dump

        with locked(self.path):
            write_atomic(self.path / "run.json", dump({**self.document(), **changes}))

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``; a perplexity of more than any number is null there."""
        kept = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept, allow_nan=False, default=float) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The rows of ``log.jsonl``; of two rows for one epoch (after a resume) the later."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        rows: dict[int, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                row = json.loads(line)
                rows[row["epoch"]] = row
        return [rows[epoch] for epoch in sorted(rows)]

    def variants(self) -> list[str]:
        """Names of the variants there are: ``base``, then the others in the order they were made."""
        found = [item for item in self.path.glob("*/variant.json") if item.parent.name[0] != "."]
        found.sort(key=lambda item: (item.parent.name != BASE, item.stat().st_mtime_ns, item))
        return [item.parent.name for item in found]

    def variant(self, name: str) -> Variant:
        """A variant by name. Raises :class:`ZooError` when it does not exist."""
        known = self.variants()
        if BASE not in known:
            raise ZooError(
                f"Run {self.name!r} is not trained to the end.",
                expected=f"{self.path / BASE}, which the training makes at its end",
                received=f"a run with the status {self.status!r}",
                hint=f"zoo train --resume {self.path}",
                kind="not_trained",
            )
        if name not in known:
            hint = f"Make it first: zoo compress {self.path} RECIPE"
            raise unknown("variant", name, known, hint=hint)
        return Variant(self, name)

    def select(self, name: str) -> list[Variant]:
        """The variants that ``--variant NAME|all`` means."""
        names = self.variants() if name == "all" else [name]
        if not names:
            names = [BASE]  # not trained yet: the error says what to do
        return [self.variant(item) for item in names]

    @contextlib.contextmanager
    def new_variant(self, name: str) -> Iterator[Path]:
        """A temporary folder that becomes the variant's folder."""
        with new_folder(self.path / check_name(name, "variant name")) as folder:
            yield folder


@contextlib.contextmanager
def workshop(run: Run, name: str, parent: Variant, recipe: str) -> Iterator[Path]:
    """The folder for the checkpoints of a variant that is being trained; gone once it is made.

    Those of an interrupted training stay, for the next one with the same recipe and parent; those
    of another parent are thrown away. Raises :class:`ZooError` while another process works there.
    """
    folder = run.path / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, TRAINING, wait=False))
        except BlockingIOError as error:
            raise ZooError(
                f"Variant {name!r} of run {run.name!r} is being made by another process.",
                expected="one at a time",
                received=f"{folder / TRAINING} is held",
                hint="Wait for it, or end it first.",
                kind="run_busy",
            ) from error
        _sweep(run.path, name)
        sign, of = folder / "of.json", {"parent": parent.sha256, "recipe": recipe}
        if not sign.exists() or read_json(sign) != of:
            for old in folder.glob("step-*"):
                shutil.rmtree(old)
            write_atomic(sign, json.dumps(of))
        yield folder
        shutil.rmtree(folder)


def create_run(root: Path, name: str, fill: Callable[[Path], None]) -> Run:
    """Make ``root/name`` by rename after ``fill(folder)`` wrote into it; point ``latest`` at it."""
    with new_folder(root / check_name(name)) as folder:
        fill(folder)
    point_latest(root, name)
    return Run(root / name)


def point_latest(root: Path, name: str) -> None:
    """Point ``root/latest`` to a run, atomically."""
    link = root / f".tmp-latest-{secrets.token_hex(SALT)}"
    link.symlink_to(name)
    link.replace(root / "latest")


def list_runs(root: Path) -> list[Run]:
    """All runs under a folder, oldest first."""
    runs = [
        Run(item.parent)
        for item in root.glob("*/run.json")
        if not item.parent.is_symlink() and not item.parent.name.startswith(".")
    ]
    return sorted(runs, key=_age)


def _age(run: Run) -> tuple[str, int, str]:
    """When a run was made; of those of one second, the one last written is the younger."""
    path = run.path / "run.json"
    created = ""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # damaged: others say so
        created = str(json.loads(path.read_text(encoding="utf-8")).get("created", ""))
    return created, path.stat().st_mtime_ns, run.name


def find_run(text: str, root: Path) -> Run:
    """``RUN`` on the command line: a path, a run's name, or ``latest``."""
    candidates = (root / text, Path(text)) if text.strip() else ()
    with contextlib.suppress(OSError):  # longer than any name can be
        for candidate in candidates:
            if (candidate / "run.json").is_file():
                return Run(candidate)
        for candidate in candidates:
            if candidate.is_dir():
                raise ZooError(
                    f"{candidate} is no run.",
                    expected="a folder with a run.json inside",
                    received="a folder without one",
                    hint="`zoo runs` lists the runs there are.",
                    kind="unknown_run",
                )
    names = [run.name for run in list_runs(root)]
    error = unknown("run", text, [*names, "latest"] if names else [],
                    hint=f"The runs in {root} were searched; --runs names another folder.")  # fmt: skip
    if not names:
        error.hint = f"There is no run in {root}. Make one: zoo train mlp"
    raise error


#: Where writing failed because of what was asked for, not of what happened: exit code 2.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}


def guard_disk(error: OSError) -> ZooError:
    """A full disk or a missing permission, said plainly."""
    return ZooError(
        f"Could not write: {error.strerror or error}.",
        expected="a folder that can be written to, with space left",
        received=str(error.filename or "") or None,
        hint="Free some space or choose another folder with --runs.",
        kind="io_error",
        exit_code=USAGE if error.errno in _REFUSED else FAILURE,
    )
