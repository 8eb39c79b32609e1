"""Do a BERT and a GPT-2 of the zoo answer as Hugging Face's do, given the same weights?

    python benchmarks/copies.py [--out benchmarks/results/copies.json]

`bert_base` and `gpt2`, built from their specs, and the models of `transformers` on PyTorch get the
same random weights, copied weight for weight: once from Keras to PyTorch, once back. Both read the same
tokens; the hidden states and BERT's summary, and GPT-2's logits, must agree to :data:`TOLERANCE`, and the
numbers of parameters exactly.

Both sides use the tanh approximation of GELU, as Google's BERT and OpenAI's GPT-2 do and keras_nlp
with them; Hugging Face's own default for BERT is the exact function, with which the hidden states of
`bert_base` are off by 1.5e-3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from zoo.environment import cpu_model, now, versions
from zoo.run import write_atomic

OUT = Path(__file__).parent / "results" / "copies.json"
TOLERANCE = 1e-5
ROWS, LENGTH, UNFILLED = 3, 48, 40
#: Keras' names of the parts of a layer, and PyTorch's.
_PARTS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
          "embeddings": "weight"}  # fmt: skip
_BERT = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embeddings_layer_norm": "embeddings.LayerNorm",
    "transformer_layer_#/self_attention_layer/query": "encoder.layer.#.attention.self.query",
    "transformer_layer_#/self_attention_layer/key": "encoder.layer.#.attention.self.key",
    "transformer_layer_#/self_attention_layer/value": "encoder.layer.#.attention.self.value",
    "transformer_layer_#/self_attention_layer/attention_output": "encoder.layer.#.attention.output.dense",
    "transformer_layer_#/self_attention_layer_norm": "encoder.layer.#.attention.output.LayerNorm",
    "transformer_layer_#/feedforward_intermediate_dense": "encoder.layer.#.intermediate.dense",
    "transformer_layer_#/feedforward_output_dense": "encoder.layer.#.output.dense",
    "transformer_layer_#/feedforward_layer_norm": "encoder.layer.#.output.LayerNorm",
    "pooled_dense": "pooler.dense",
}
#: ``NAME:K`` is the K-th third of a matrix that holds queries, keys and values side by side.
_GPT2 = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "transformer_layer_#/self_attention/query": "transformer.h.#.attn.c_attn:0",
    "transformer_layer_#/self_attention/key": "transformer.h.#.attn.c_attn:1",
    "transformer_layer_#/self_attention/value": "transformer.h.#.attn.c_attn:2",
    "transformer_layer_#/self_attention/attention_output": "transformer.h.#.attn.c_proj",
    "transformer_layer_#/self_attention_layer_norm": "transformer.h.#.ln_1",
    "transformer_layer_#/feedforward_intermediate_dense": "transformer.h.#.mlp.c_fc",
    "transformer_layer_#/feedforward_output_dense": "transformer.h.#.mlp.c_proj",
    "transformer_layer_#/feedforward_layer_norm": "transformer.h.#.ln_2",
    "layer_norm": "transformer.ln_f",
}


@dataclass(frozen=True)
class Pair:
    """A model of the zoo and Hugging Face's.

    ``names`` maps layers to modules; ``turned`` tells that the latter keep matrices as (out, in).
    ``peer(config)`` makes the PyTorch model of the zoo's config; ``ours`` and ``theirs`` give what is
    compared, by name, for ids (n, T) and the mask (n, T) of what is no filling.
    """

    model: str
    names: Mapping[str, str]
    turned: bool
    peer: Callable[[Mapping[str, Any]], Any]
    ours: Callable[[Any, np.ndarray, np.ndarray], dict[str, np.ndarray]]
    theirs: Callable[[Any, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def _bert(config: Mapping[str, Any]) -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(
        vocab_size=config["vocabulary"], hidden_size=config["width"],
        num_hidden_layers=config["layers"], num_attention_heads=config["heads"],
        intermediate_size=4 * config["width"], max_position_embeddings=config["positions"],
        hidden_act="gelu_new", layer_norm_eps=1e-12, attn_implementation="eager",
    )).eval()  # fmt: skip


def _gpt2(config: Mapping[str, Any]) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(
        vocab_size=config["vocabulary"], n_embd=config["width"], n_layer=config["layers"],
        n_head=config["heads"], n_positions=config["shape"][0], activation_function="gelu_new",
        layer_norm_epsilon=1e-5, attn_implementation="eager", bos_token_id=1, eos_token_id=1,
    )).eval()  # fmt: skip


def _our_bert(model: Any, ids: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    segments = np.zeros_like(ids)
    inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": there.astype(np.int32)}
    said = model.get_layer("backbone")(inputs, training=False)
    return {
        "hidden": said["sequence_output"].numpy()[there],
        "pooled": said["pooled_output"].numpy(),
    }


def _their_bert(model: Any, ids: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        said = model(torch.tensor(ids), attention_mask=torch.tensor(there))
    return {"hidden": said.last_hidden_state.numpy()[there], "pooled": said.pooler_output.numpy()}


def _our_gpt2(model: Any, ids: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    return {"logits": model(ids, training=False).numpy()[there]}


def _their_gpt2(model: Any, ids: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        return {"logits": model(torch.tensor(ids)).logits.numpy()[there]}


PAIRS = (
    Pair("bert_base", _BERT, True, _bert, _our_bert, _their_bert),
    Pair("gpt2", _GPT2, False, _gpt2, _our_gpt2, _their_gpt2),
)


def _linked(pair: Pair, backbone: Any, peer: Any) -> list[tuple[Any, Any, bool]]:
    """Each Keras weight, the PyTorch tensor (a view) that holds the same, and if that is turned.

    Raises where a weight of either side is left over."""
    held, used, found = peer.state_dict(), set(), []
    for weight in backbone.weights:
        layer, part = weight.path.removeprefix("backbone/").rsplit("/", 1)
        number = re.search(r"transformer_layer_(\d+)", layer)
        module = pair.names[re.sub(r"(?<=transformer_layer_)\d+", "#", layer)]
        name, _, third = module.replace("#", number[1] if number else "").partition(":")
        name = f"{name}.{_PARTS[part]}"
        tensor = held[name]
        if third:
            width = tensor.shape[-1] // 3
            tensor = tensor[..., int(third) * width :][..., :width]
        used.add(name)
        found.append((weight, tensor, pair.turned and part == "kernel"))
    left = {n for n in held if held[n].data_ptr() not in {held[u].data_ptr() for u in used}}
    assert not left, f"weights without a counterpart: {sorted(left)}"
    return found


def _drawn(shape: tuple[int, ...], path: str, rng: np.random.Generator) -> np.ndarray:
    """Random weights of which each one counts: scales near 1, matrices as BERT and GPT-2 begin."""
    noise = rng.normal(size=shape)
    return (1 + 0.1 * noise if path.endswith("gamma") else 0.02 * noise).astype(np.float32)


def compare(pair: Pair, sizes: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """The largest differences of a pair, whose spec's config is changed by ``sizes``."""
    import torch

    from zoo.registry import models

    spec = models().get(pair.model)
    config = {**spec.config, **sizes}
    model, peer = spec.build(**config), pair.peer(config)
    backbone = model.get_layer("backbone")
    links = _linked(pair, backbone, peer)
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, config["vocabulary"], (ROWS, min(LENGTH, config["shape"][0])))
    ids = ids.astype(np.int32)
    ids[-1, UNFILLED:] = 0
    if pair.model == "gpt2":  # its model reads whole windows, filling behind the text
        ids = np.pad(ids, ((0, 0), (0, config["shape"][0] - ids.shape[1])))
    there = ids != 0
    row: dict[str, Any] = {
        "model": pair.model,
        "config": {name: config[name] for name in ("layers", "heads", "width", "vocabulary")},
        "parameters": {"ours": backbone.count_params(), "theirs": sum(p.numel() for p in peer.parameters())},
        "tokens": int(there.sum()),
        "max_abs": {},
    }  # fmt: skip
    for direction in ("keras to torch", "torch to keras"):
        for weight, tensor, turned in links:
            if direction == "keras to torch":
                weight.assign(_drawn(tuple(weight.shape), weight.path, rng))
                matrix = np.asarray(weight)
                flat = matrix.reshape(tuple(tensor.T.shape if turned else tensor.shape))
                tensor.copy_(torch.tensor(flat.T if turned else flat))
            else:
                new = _drawn(tuple(tensor.shape), weight.path, rng)
                tensor.copy_(torch.tensor(new))
                weight.assign((new.T if turned else new).reshape(tuple(weight.shape)))
        ours, theirs = pair.ours(model, ids, there), pair.theirs(peer, ids, there)
        row["max_abs"][direction] = {
            name: float(np.abs(ours[name] - theirs[name]).max()) for name in ours
        }
        row["spread"] = {name: float(values.std()) for name, values in ours.items()}
        row["shapes"] = {name: list(values.shape) for name, values in ours.items()}
    gaps = [gap for told in row["max_abs"].values() for gap in told.values()]
    same = row["parameters"]["ours"] == row["parameters"]["theirs"]
    return {**row, "holds": bool(same and max(gaps) <= TOLERANCE)}


@click.command()
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Copy, compare, write what came out."""
    import torch
    import transformers

    document = {
        "tolerance": TOLERANCE,
        "device": cpu_model(),
        "environment": {**versions(), "torch": torch.__version__, "transformers": transformers.__version__},
        "created": now(),
        "results": [compare(pair, {}) for pair in PAIRS],
    }  # fmt: skip
    write_atomic(out, json.dumps(document, indent=1) + "\n")
    for row in document["results"]:
        click.echo(json.dumps(row))
    raise SystemExit(0 if all(row["holds"] for row in document["results"]) else 1)


if __name__ == "__main__":
    main()
