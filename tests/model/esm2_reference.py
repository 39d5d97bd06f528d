"""fair-esm in fp32 as the reference, small models whose attention is sharp, and checkpoints in every layout."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from esm import ESM2
from esm.data import Alphabet
from safetensors.torch import save_file
from torch import Tensor

from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import trained_inv_freq

ALPHABET = Alphabet.from_architecture("ESM-1b")
#: Attention nearly uniform hides faults of rotary position and scale; above about 6 a random network is chaotic.
SHARP_LOGITS = 3.0


def attention_logits(model: ESM2, ids: Tensor) -> list[Tensor]:
    """Logits of each layer (heads, n, n) for one sequence."""
    logits: list[Tensor] = []
    hooks = [
        layer.self_attn.rot_emb.register_forward_hook(lambda _m, _i, out: logits.append(out[0] @ out[1].mT))
        for layer in model.layers
    ]
    with torch.no_grad():
        model(ids[None])
    for hook in hooks:
        hook.remove()
    return logits


def sharp_esm2(layers: int = 2, dim: int = 64, heads: int = 4, seed: int = 0) -> ESM2:
    """A random ESM-2 with trained rotary frequencies and attention logits of standard deviation 3 in each layer."""
    torch.manual_seed(seed)
    model = ESM2(layers, dim, heads, alphabet=ALPHABET).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.copy_(torch.randn_like(parameter) * 0.1 + ("norm" in name and name.endswith("weight")))
    model.embed_tokens.weight.copy_(torch.randn_like(model.embed_tokens.weight))
    ids = encode(random_sequence(150, random.Random(seed)))
    for index, layer in enumerate(model.layers):
        attention = layer.self_attn
        attention.rot_emb.inv_freq = trained_inv_freq(dim // heads)
        factor = float((SHARP_LOGITS / attention_logits(model, ids)[index].std()).sqrt())
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight *= factor
            projection.bias *= factor
    return model


def random_sequence(length: int, rng: random.Random) -> str:
    return "".join(rng.choices("LAGVSERTIDPKQNFYMHWCXBUZO", k=length))


def encode(sequence: str) -> Tensor:
    """(n,) token ids with <cls> and <eos>; '#' stands for <mask>."""
    tokens = ["<mask>" if letter == "#" else letter for letter in sequence]
    return torch.tensor([ALPHABET.cls_idx, *map(ALPHABET.get_idx, tokens), ALPHABET.eos_idx])


def reference_states(model: ESM2, sequence: str, layers: Sequence[int]) -> dict[int, Tensor]:
    """fair-esm's states (n, D) of one sequence alone."""
    with torch.no_grad():
        states = model(encode(sequence)[None], repr_layers=list(layers))["representations"]
    return {layer: states[layer][0] for layer in layers}


@dataclass(frozen=True)
class Pack:
    """Sequences end to end, as the model takes them."""

    ids: Tensor
    cu_seqlens: Tensor
    positions: Tensor
    max_seqlen: int

    @classmethod
    def of(cls, sequences: Sequence[str]) -> Pack:
        parts = [encode(sequence) for sequence in sequences]
        lengths = torch.tensor([0] + [len(part) for part in parts])
        positions = torch.cat([torch.arange(len(part), dtype=torch.int32) for part in parts])
        return cls(torch.cat(parts), lengths.cumsum(0).int(), positions, int(lengths.max()))


def packed_states(model: PackedEsm2, sequences: Sequence[str], layers: Sequence[int]) -> list[dict[int, Tensor]]:
    """Our states, per sequence, of all sequences in one pack."""
    pack = Pack.of(sequences)
    states = model.forward(pack.ids, pack.cu_seqlens, pack.positions, pack.max_seqlen, layers)
    spans = pairwise(pack.cu_seqlens.tolist())
    return [{layer: states[layer][begin:end] for layer in layers} for begin, end in spans]


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Largest relative L2 error of any token."""
    return float(((ours.float() - reference).norm(dim=-1) / reference.norm(dim=-1)).max())


def save_fair_esm(model: ESM2, path: Path, layout: str = "cfg", **changes: object) -> Path:
    """Write a fair-esm ``.pt`` file; ``changes`` replaces tensors (None removes one) by their key in the model."""
    sizes = {
        "encoder_layers": model.num_layers,
        "encoder_embed_dim": model.embed_dim,
        "encoder_attention_heads": model.attention_heads,
        "token_dropout": model.token_dropout,
    }
    state = {
        f"encoder.{'' if key.startswith('lm_head') else 'sentence_encoder.'}{key}": value
        for key, value in _changed(model, changes).items()
    }
    if layout == "cfg":
        content = {"cfg": {"model": Namespace(**sizes)}, "model": state}
    else:
        content = {"args": Namespace(arch="esm2", **{k.removeprefix("encoder_"): v for k, v in sizes.items()})}
        content["model"] = state
    torch.save(content, path)
    return path


def hugging_face_config(model: ESM2, **changes: object) -> dict[str, object]:
    settings: dict[str, object] = {
        "architectures": ["EsmForMaskedLM"],
        "model_type": "esm",
        "vocab_size": 33,
        "hidden_size": model.embed_dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.attention_heads,
        "intermediate_size": 4 * model.embed_dim,
        "hidden_act": "gelu",
        "position_embedding_type": "rotary",
        "emb_layer_norm_before": False,
        "layer_norm_eps": 1e-5,
        "token_dropout": True,
        "mask_token_id": 32,
        "pad_token_id": 1,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
    }
    return settings | changes


def hugging_face_state(model: ESM2, prefix: str = "esm.") -> dict[str, Tensor]:
    names = {
        "self_attn.q_proj": "attention.self.query",
        "self_attn.k_proj": "attention.self.key",
        "self_attn.v_proj": "attention.self.value",
        "self_attn.rot_emb": "attention.self.rotary_embeddings",
        "self_attn.out_proj": "attention.output.dense",
        "self_attn_layer_norm": "attention.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "final_layer_norm": "LayerNorm",
    }
    state = {}
    for key, value in _changed(model, {}).items():
        if key.startswith("layers."):
            _, index, rest = key.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            state[f"{prefix}encoder.layer.{index}.{names[stem]}.{kind}"] = value
        elif key.startswith("emb_layer_norm_after"):
            state[f"{prefix}encoder.{key}"] = value
        elif key == "embed_tokens.weight":
            state[f"{prefix}embeddings.word_embeddings.weight"] = value
    return state


def save_hugging_face(model: ESM2, folder: Path, layout: str = "safetensors", prefix: str = "esm.") -> Path:
    """Write a Hugging Face folder; layouts: safetensors, bin, and sharded-safetensors, sharded-bin in two files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(hugging_face_config(model)))
    state = hugging_face_state(model, prefix)
    stem, suffix = ("pytorch_model", "bin") if layout.endswith("bin") else ("model", "safetensors")
    if not layout.startswith("sharded"):
        _save(state, folder / f"{stem}.{suffix}")
        return folder
    keys = list(state)
    shards = {f"{stem}-0000{n}-of-00002.{suffix}": keys[n - 1 :: 2] for n in (1, 2)}
    for name, members in shards.items():
        _save({key: state[key] for key in members}, folder / name)
    weight_map = {key: name for name, members in shards.items() for key in members}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def _save(state: dict[str, Tensor], file: Path) -> None:
    if file.suffix == ".bin":
        torch.save(state, file)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, file)


def _changed(model: ESM2, changes: dict[str, object]) -> dict[str, object]:
    state = {key: value.clone() for key, value in model.state_dict().items()} | changes
    return {key: value for key, value in state.items() if value is not None}
