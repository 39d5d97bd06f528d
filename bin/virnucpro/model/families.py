"""The families of encoders that run here: what tensors each has, under whose names, and what its config.json says.

Canonical are fair-esm's names without their prefix; ``*`` stands for the number of a layer.

Shape letters: V vocabulary, P learned positions, D embed_dim, F ffn_dim, H half of head_dim.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

FAIR_ESM: Final = "fair-esm"
HUGGING_FACE: Final = "huggingface"
VOCABULARY_SIZE: Final = 33
#: Rows of the learned table; the first two, of padding and of nothing, are no position's.
LEARNED_POSITIONS: Final = 1026
FIRST_POSITION: Final = 2
POSITION_TABLE: Final = "embed_positions.weight"
FIRST_NORM: Final = "emb_layer_norm_before"
FREQUENCIES: Final = "layers.*.self_attn.rot_emb.inv_freq"
_LAYER: Final = re.compile(r"^(layers|encoder\.layer)\.(\d+)\.")
#: Some versions of transformers write a LayerNorm's parameters under TensorFlow's names.
_TENSORFLOW_NORM: Final = re.compile(r"(?<=LayerNorm\.)(gamma|beta)$")
_NORM_PARTS: Final = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """Its name in Hugging Face's layout, and its shape in the letters above."""

    hugging_face: str
    shape: str


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """What sets a family of encoders apart.

    Args:
        name: as its authors write it.
        tensors: canonical name -> tensor.
        settings: key of config.json -> what it must say, and what transformers assumes where it is silent.
        rotary_base: base of the rotary frequencies that the family was trained with; None where it has no rotation.
    """

    name: str
    tensors: Mapping[str, NamedTensor]
    settings: Mapping[str, tuple[object, object]]
    rotary_base: float | None

    @property
    def positions(self) -> int | None:
        """Tokens of the longest sequence that positions were learned for; None where none are learned."""
        return LEARNED_POSITIONS - FIRST_POSITION if POSITION_TABLE in self.tensors else None

    def holds(self, names: Collection[str]) -> bool:
        """Whether these canonical names are those of a whole encoder, with or without its frequencies."""
        found = {_LAYER.sub(r"\1.*.", name) for name in names}
        return self.tensors.keys() - {FREQUENCIES} <= found <= self.tensors.keys()

    def differences(self, settings: Mapping[str, object]) -> list[str]:
        """What a config.json says that is not this family's, in words."""
        said = {key: settings.get(key, silent) for key, (_, silent) in self.settings.items()}
        return [
            f"{key} is {value!r}, but {self.name} has {self.settings[key][0]!r}"
            for key, value in said.items()
            if value != self.settings[key][0] and not (self.settings[key][0] is False and value is None)
        ]

    def shapes(self, layers: int, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Canonical names of a whole checkpoint with the shape of each tensor; ``sizes`` by letter."""
        sizes = {"V": VOCABULARY_SIZE, "P": LEARNED_POSITIONS, **sizes}
        return {
            name.replace("*", str(index)): tuple(sizes[letter] for letter in tensor.shape)
            for name, tensor in self.tensors.items()
            for index in (range(layers) if "*" in name else [0])
        }


def _affine(name: str, hugging_face: str, shape: str) -> dict[str, NamedTensor]:
    return {
        f"{name}.weight": NamedTensor(f"{hugging_face}.weight", shape),
        f"{name}.bias": NamedTensor(f"{hugging_face}.bias", shape[0]),
    }


def _in_layer(name: str, hugging_face: str, shape: str) -> dict[str, NamedTensor]:
    return _affine(f"layers.*.{name}", f"encoder.layer.*.{hugging_face}", shape)


_COMMON: Final = (
    {"embed_tokens.weight": NamedTensor("embeddings.word_embeddings.weight", "VD")}
    | _in_layer("self_attn.q_proj", "attention.self.query", "DD")
    | _in_layer("self_attn.k_proj", "attention.self.key", "DD")
    | _in_layer("self_attn.v_proj", "attention.self.value", "DD")
    | _in_layer("self_attn.out_proj", "attention.output.dense", "DD")
    | _in_layer("self_attn_layer_norm", "attention.LayerNorm", "D")
    | _in_layer("fc1", "intermediate.dense", "FD")
    | _in_layer("fc2", "output.dense", "DF")
    | _in_layer("final_layer_norm", "LayerNorm", "D")
    | _affine("emb_layer_norm_after", "encoder.emb_layer_norm_after", "D")
)


def _settings(**own: tuple[object, object]) -> dict[str, tuple[object, object]]:
    """Those of all families here, and a family's own."""
    return {
        "vocab_size": (VOCABULARY_SIZE, None),
        "hidden_act": ("gelu", "gelu"),
        "layer_norm_eps": (1e-5, 1e-12),
        "is_decoder": (False, False),
        "is_folding_model": (False, False),
        "esmfold_config": (None, None),
        **own,
    }


ESM_2: Final = Family(
    name="ESM-2",
    tensors=_COMMON | {FREQUENCIES: NamedTensor("encoder.layer.*.attention.self.rotary_embeddings.inv_freq", "H")},
    settings=_settings(position_embedding_type=("rotary", "absolute"), emb_layer_norm_before=(False, None)),
    rotary_base=10000.0,
)
#: Meier et al., "Language models enable zero-shot prediction of the effects of mutations", NeurIPS 2021.
ESM_1V: Final = Family(
    name="ESM-1v",
    tensors=_COMMON | {POSITION_TABLE: NamedTensor("embeddings.position_embeddings.weight", "PD")},
    settings=_settings(position_embedding_type=("absolute", "absolute"), emb_layer_norm_before=(False, None)),
    rotary_base=None,
)
#: Rives et al., "Biological structure and function emerge from scaling unsupervised learning to 250 million protein
#: sequences", PNAS 2021.
ESM_1B: Final = Family(
    name="ESM-1b",
    tensors={**ESM_1V.tensors, **_affine(FIRST_NORM, "embeddings.layer_norm", "D")},
    settings=_settings(position_embedding_type=("absolute", "absolute"), emb_layer_norm_before=(True, None)),
    rotary_base=None,
)
FAMILIES: Final = (ESM_2, ESM_1B, ESM_1V)


def nearest_family(names: Collection[str]) -> Family:
    """The family whose tensors differ least from these canonical names, layers' numbers and all."""
    found = {_LAYER.sub(r"\1.*.", name) for name in names}
    return min(FAMILIES, key=lambda family: len((family.tensors.keys() ^ found) - {FREQUENCIES}))


#: Canonical name by layout and by the name there, of all families.
_CANONICAL: Final = {
    FAIR_ESM: {name: name for family in FAMILIES for name in family.tensors},
    HUGGING_FACE: {each.hugging_face: name for family in FAMILIES for name, each in family.tensors.items()},
}


def canonical_name(key: str, layout: str) -> str | None:
    """Canonical name of a key, without its prefix, in a layout; None where no family has such a tensor."""
    match = _LAYER.match(key)
    template = key if match is None else f"{match[1]}.*.{key[match.end() :]}"
    name = _CANONICAL[layout].get(_TENSORFLOW_NORM.sub(lambda part: _NORM_PARTS[part[1]], template))
    if name is None or ("*" in name) != (match is not None):
        return None
    return name if match is None else name.replace("*", str(int(match[2])))
