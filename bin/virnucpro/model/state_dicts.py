"""Tables of weights: which of their tensors are an ESM-2 encoder, under which names, and what lies beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from virnucpro.errors import ModelError
from virnucpro.model import families
from virnucpro.model.checkpoint_files import PROMPTS, adapter_report
from virnucpro.model.families import FAIR_ESM, FAMILIES, HUGGING_FACE, Family, canonical_name, nearest_family
from virnucpro.model.hugging_face import SHARED_INV_FREQ
from virnucpro.model.parameters import inv_freq_key, trained_inv_freq
from virnucpro.model.registry import MODELS, Esm2Config
from virnucpro.model.strangers import ADVICE, adapter_of, family_of, has_prompts, name_of, quantised_by

_ONE_MODEL: Final = "so that it is not clear which counts; save the state_dict() of one model"


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one package names an encoder.

    Args:
        source: the package.
        anchor: the key that tells the layout, and before which stands the prefix of the encoder.
        parts, heads: first names of what belongs to the encoder, and of what the package puts beside it.
        closed: last names of prefixes under which the package puts nothing else.
        idle: keys that play no part in families that have no such tensor.
    """

    source: str
    anchor: str
    parts: tuple[str, ...]
    heads: tuple[str, ...]
    closed: str
    idle: tuple[str, ...] = ()


_LAYOUTS: Final = (
    _Layout(
        FAIR_ESM,
        "embed_tokens.weight",
        ("embed_tokens", "layers", "emb_layer_norm_after", "emb_layer_norm_before", "embed_positions"),
        ("lm_head", "contact_head"),
        "sentence_encoder",
    ),
    _Layout(
        HUGGING_FACE,
        "embeddings.word_embeddings.weight",
        ("embeddings", "encoder", "rotary_embeddings"),
        ("lm_head", "contact_head", "pooler"),
        "esm",
        ("embeddings.position_ids", "embeddings.position_embeddings.weight"),
    ),
)
#: What torch.compile and the wrappers of FSDP put into names, at any depth.
_TRANSPARENT: Final = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_LAYER: Final = re.compile(r"^(encoder\.)?layers?\.\d+\.")
_ESM_FOLD: Final = re.compile(r"(^|\.)esm_s_combine$")
#: PEFT's name for a layer that it has put an adapter around.
_WRAPPED: Final = re.compile(r"\.base_layer\.")
_LAYER_INDEX: Final = re.compile(r"^layers\.(\d+)\.")
_SHARED: Final = "rot_emb.inv_freq"


@dataclass(slots=True)
class EncoderWeights:
    """The encoder in a table of weights.

    Args:
        source: ``fair-esm`` or ``huggingface``, the layout of the names.
        state: canonical keys -> tensors.
        idle: canonical keys that a family without such a tensor is to ignore.
        strangers: names that lie inside the encoder and are no part of an ESM-2.
        left_out: names of the heads beside it.
    """

    source: str
    state: dict[str, Tensor] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The family whose tensors these are, but for what is missing or surplus."""
        return nearest_family(self.state.keys())


def holds_encoder(keys: Iterable[object]) -> bool:
    """Whether weights of these names have the table of embeddings of an encoder."""
    return bool(_anchors([name_of(key) for key in keys]))


def find_encoder(path: Path, pairs: Iterable[tuple[str, object]]) -> EncoderWeights:
    """The ESM-2 encoder in named weights, wherever in a larger model it is.

    What lies under the encoder's own names is the encoder's; what lies beside it is a head and left out.

    Raises:
        ModelError: another family, an adapter, quantised weights, or no encoder, or several.
    """
    named = [(_TRANSPARENT.sub("", name_of(key)), value) for key, value in pairs]
    layout, prefix = _only_anchor(path, [key for key, _ in named])
    found = EncoderWeights(layout.source)
    heads, inside = set(), []
    for key, value in named:
        inner = key.removeprefix(prefix) if key.startswith(prefix) else None
        if inner is not None and _belongs(inner, prefix, layout):
            inside.append((key, inner, value))
        elif prefix and _canonical(key, layout):
            raise ModelError(f"{path}: '{key}' occurs twice, {_ONE_MODEL}")
        else:
            heads.add(_head_name(key, prefix))
    names = {_canonical(inner, layout) or inner for _, inner, _ in inside if inner not in layout.idle}
    if not any(family.holds(names) for family in FAMILIES):
        _refuse_others(path, [inner for _, inner, _ in inside], [key for key, _ in named])
    for key, inner, value in inside:
        if canonical := _canonical(inner, layout):
            _add(path, found.state, key, canonical, value)
            found.idle |= {canonical} if inner in layout.idle else set()
        elif inner not in layout.idle:
            found.strangers.append(inner)
    found.left_out = tuple(sorted(heads))
    return found


def _refuse_others(path: Path, inside: list[str], keys: list[str]) -> None:
    """Name what has these keys in its encoder, or where it has none, anywhere, and is no plain ESM-2."""
    if has_prompts(keys):
        raise ModelError(f"{path}: a PEFT adapter {PROMPTS}")
    if adapter := adapter_of(inside):
        if not any(map(_WRAPPED.search, keys)) and not _anchors(keys):
            raise ModelError(adapter_report(path, adapter))
        raise ModelError(
            f"{path}: a model with a PEFT adapter ({adapter}) that is not merged into it; where it was made, merge it: "
            "model.merge_and_unload().save_pretrained('merged')"
        )
    if package := quantised_by(inside):
        raise ModelError(
            f"{path}: quantised ({package}), which is not read; give the weights from before, or write them anew: "
            "model.dequantize().save_pretrained('plain')"
        )
    # Beside layers that may be ESM-2's lie heads, which may be named as they like; but for ESMFold's.
    told = [*inside, *filter(_ESM_FOLD.search, keys)] if any(map(_LAYER.match, inside)) else keys
    if family := family_of(told):
        raise ModelError(f"{path}: a model of another family, {family}; {ADVICE}")


def _anchors(keys: Iterable[str]) -> list[tuple[_Layout, str]]:
    return [
        (layout, key.removesuffix(layout.anchor))
        for layout in _LAYOUTS
        for key in keys
        if key == layout.anchor or key.endswith(f".{layout.anchor}")
    ]


def _only_anchor(path: Path, keys: list[str]) -> tuple[_Layout, str]:
    found = _anchors(keys)
    if len(found) == 1:
        return found[0]
    _refuse_others(path, keys, keys)
    if found:
        names = ", ".join(sorted(repr(prefix.removesuffix(".")) for _, prefix in found))
        raise ModelError(f"{path}: holds several encoders, at {names}; save the state_dict() of one alone")
    if any(key.endswith("contact_head.regression.weight") for key in keys):
        raise ModelError(f"{path}: the contact head alone; give the .pt file without -contact-regression")
    known = f"its names begin {_first_few(sorted(keys))}" if keys else "it is empty"
    raise ModelError(f"{path}: no ESM-2 encoder in it ({known}); {ADVICE}")


def _belongs(inner: str, prefix: str, layout: _Layout) -> bool:
    """Whether a key under the encoder's prefix is the encoder's, or a head's beside it."""
    first = inner.partition(".")[0]
    if first in layout.parts:
        return True
    return first not in layout.heads and prefix.removesuffix(".").rpartition(".")[2] == layout.closed


def _canonical(key: str, layout: _Layout) -> str | None:
    shared = layout.source == HUGGING_FACE and key in SHARED_INV_FREQ
    return _SHARED if shared else canonical_name(key, layout.source)


def _head_name(key: str, prefix: str) -> str:
    """The first name of a key that it does not share with the encoder's prefix."""
    outer = prefix.split(".")[:-1]
    names = key.split(".")
    depth = 0
    while depth < len(outer) and depth < len(names) - 1 and names[depth] == outer[depth]:
        depth += 1
    return names[depth]


def _add(path: Path, state: dict[str, Tensor], key: str, canonical: str, value: object) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(f"{path}: '{key}' is not a tensor of floating-point numbers, but {kind}; {ADVICE}")
    if value.element_size() == 1:
        raise ModelError(
            f"{path}: '{key}' is quantised ({value.dtype}), which is not read; give the weights from before"
        )
    if value.is_meta or value.layout != torch.strided:
        raise ModelError(f"{path}: '{key}' holds no numbers (a meta or sparse tensor); save the trained model itself")
    if canonical in state:
        raise ModelError(f"{path}: '{canonical}' occurs twice, {_ONE_MODEL}")
    state[canonical] = value


def sizes_from_tensors(path: Path, name: str, encoder: EncoderWeights) -> Esm2Config:
    """The sizes that the tensors have; heads from the rotary frequencies, or from the official model of these sizes.

    Raises:
        ModelError: what is missing to know them.
    """
    state = encoder.state
    indices = [int(match[1]) for key in state if (match := _LAYER_INDEX.match(key))]
    table = state["embed_tokens.weight"]
    layers, embed_dim = max(indices, default=-1) + 1, table.shape[1] if table.dim() == 2 else 0
    frequencies = next((value for key, value in state.items() if key.endswith(_SHARED)), None)
    official = [model.heads for model in MODELS.values() if (model.layers, model.embed_dim) == (layers, embed_dim)]
    if frequencies is not None and frequencies.numel():
        heads = embed_dim // (2 * frequencies.numel())
    elif families.POSITION_TABLE in encoder.idle:
        raise ModelError(f"{path}: may be an ESM-1b, or an ESM-2 with idle positions; put its config.json beside it")
    elif official:
        heads = official[0]
    else:
        raise ModelError(
            f"{path}: does not tell its number of attention heads ({layers} layers of width {embed_dim}, no "
            "rot_emb.inv_freq); put its config.json beside it, or save it with inv_freq"
        )
    return Esm2Config(name, layers, embed_dim, heads, family=encoder.family)


def complete_state(
    path: Path, config: Esm2Config, encoder: EncoderWeights, *, trained_frequencies: bool = True
) -> dict[str, Tensor]:
    """The whole canonical state of an encoder of these sizes.

    A checkpoint without any rotary frequencies, as some converters leave it, gets those of training; a family that has
    no rotation gets zeros, which turn nothing.

    Raises:
        ModelError: a tensor is missing, surplus or of another shape.
    """
    shapes = config.shapes()
    state = {key: value for key, value in encoder.state.items() if key in shapes or key not in encoder.idle}
    shared = state.pop(_SHARED, None)
    keys = [inv_freq_key(index) for index in range(config.layers)]
    frequencies = dict.fromkeys(keys, trained_inv_freq(config.head_dim, config.family.rotary_base))
    if shared is not None:
        twice = next((key for key in keys if key in state), None)
        if twice:
            raise ModelError(f"{path}: '{twice}' occurs twice, {_ONE_MODEL}")
        state.update(dict.fromkeys(keys, shared))
    elif frequencies.keys() <= shapes.keys() and not any(key in state for key in keys):
        if not trained_frequencies:
            raise ModelError(
                f"{path}: has no rotary frequencies, and config.json asks for others than ESM-2's; {ADVICE}"
            )
        state.update(frequencies)
    _check_keys(path, config, state, encoder.strangers)
    return frequencies | state


def _check_keys(path: Path, config: Esm2Config, state: Mapping[str, Tensor], strangers: list[str]) -> None:
    shapes = config.shapes()
    family = config.family.name
    surplus = sorted([*strangers, *(state.keys() - shapes.keys())])
    faults = {
        "lacks": (sorted(shapes.keys() - state.keys()), "the file is not whole: save or download it again"),
        f"has beyond an {family} encoder": (
            surplus,
            f"without those its vectors would be others: give a plain {family}",
        ),
        "has in another shape": (
            sorted(key for key in shapes if key in state and state[key].shape != shapes[key]),
            "give weights and sizes of one model",
        ),
    }
    found = [f"{fault} {_first_few(keys)}" for fault, (keys, _) in faults.items() if keys]
    if found:
        advice = next(advice for keys, advice in reversed(faults.values()) if keys)
        sizes = f"{config.layers} layers of width {config.embed_dim}"
        raise ModelError(f"{path}: not the {family} of {sizes} that it says: it {', and '.join(found)}; {advice}")


def _first_few(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
