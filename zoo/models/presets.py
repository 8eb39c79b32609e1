"""Published backbones of keras_nlp: by name, or a folder that its ``save_to_preset`` wrote.

From a folder only numbers, words and weights are read, never code. One that is named is fetched by
keras_nlp and kept as such a folder in the cache, so that the next time needs no network.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from zoo.errors import FAILURE, ZooError

#: How a published backbone is fine-tuned (Devlin et al., NAACL 2019, appendix A.3).
TRAIN = {"learning_rate": 5e-5, "schedule": "linear", "warmup": 0.1, "epochs": 3}
CONFIG, WEIGHTS, WORDS = "config.json", "model.weights.h5", "assets/tokenizer/vocabulary.txt"
TOKENIZER = "tokenizer.json"


def cache_folder() -> Path:
    """Where fetched presets are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "glasszoo" / "presets"


def folder_of(preset: str, offline: bool = False) -> Path:
    """The folder of a preset: a user's own, or fetched. Raises :class:`ZooError` without a network."""
    own = Path(preset).expanduser()
    if own.is_dir():
        return own
    kept = cache_folder() / preset.replace("/", "-")
    if kept.is_dir():
        return kept
    if not offline:
        try:
            return _fetched(preset, kept)
        except Exception as error:  # kagglehub and its requests raise classes of their own
            reason = " ".join(str(error).split())[:200]
    else:
        reason = "--offline"
    raise ZooError(
        f"The preset {preset!r} is not here and can't be fetched.",
        expected="the folder of a preset, or the name of one and a network",
        received=reason,
        hint="On a machine with a network: keras_nlp.models.BertBackbone.from_preset(NAME)"
        ".save_to_preset('FOLDER'), the same with keras_nlp.tokenizers.BertTokenizer; then "
        "--preset FOLDER here.",
        kind="offline",
    )


def _fetched(preset: str, kept: Path) -> Path:
    from zoo.backend import keras_nlp

    part = kept.with_name(f"{kept.name}.part-{os.getpid()}")
    try:
        for kind in (keras_nlp.models.BertBackbone, keras_nlp.tokenizers.BertTokenizer):
            kind.from_preset(preset).save_to_preset(str(part))
        part.rename(kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return kept


def read(preset: str, offline: bool = False) -> dict[str, dict[str, Any]]:
    """What a preset decides: ``{config, encoding, train}``. Raises :class:`ZooError` for another."""
    folder = folder_of(preset, offline)
    try:
        document = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        words = (folder / WORDS).read_text(encoding="utf-8").splitlines()
        config = document["config"]
        sizes = {
            name: int(config[theirs])
            for name, theirs in (
                ("layers", "num_layers"), ("heads", "num_heads"), ("width", "hidden_dim"),
                ("positions", "max_sequence_length"),
            )
        } | {"dropout": float(config["dropout"])}  # fmt: skip
        usual = config["intermediate_dim"] == 4 * sizes["width"] and config["num_segments"] == 2
        if document["class_name"] != "BertBackbone" or not usual:
            raise ValueError(f"a {document['class_name']} of another shape")
        lowercase = True  # as those are that have no word of it
        if (folder / TOKENIZER).is_file():
            told = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))["config"]
            lowercase = bool(told.get("lowercase", True))
        if len(words) != config["vocabulary_size"]:
            raise ValueError(f"{len(words)} words for {config['vocabulary_size']} embeddings")
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"no {WEIGHTS}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ZooError(
            f"{folder} is no preset of a BERT.",
            expected=f"{CONFIG} of a BertBackbone, {WEIGHTS} and {WORDS}",
            received=" ".join(str(error).split())[:200],
            kind="bad_preset",
        ) from error
    return {
        "config": sizes,
        "encoding": {"wordpieces": words, "lowercase": lowercase},
        "train": dict(TRAIN),
    }


def weights_of(preset: str) -> Path:
    """The file of a preset's weights."""
    path = folder_of(preset) / WEIGHTS
    if not path.is_file():
        raise ZooError(f"{path} is gone.", kind="bad_preset", exit_code=FAILURE)
    return path
