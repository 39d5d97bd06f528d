"""Checkpoints as they lie on disk: fair-esm ``.pt`` files and Hugging Face folders, read without running their code.

Both become one canonical state dict: fair-esm's key names without its ``encoder.sentence_encoder.`` prefix.
"""

from __future__ import annotations

import argparse
import errno
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from virnucpro.errors import InputMissingError, ModelError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import expected_shapes, inv_freq_key, trained_inv_freq
from virnucpro.model.registry import VOCABULARY_SIZE, Esm2Config

_Content = TypeVar("_Content")

FAIR_ESM: Final = "fair-esm"
HUGGING_FACE: Final = "huggingface"

_FAIR_ESM_PREFIX: Final = re.compile(r"^(encoder\.)?(sentence_encoder\.)?")
#: Heads on top of the encoder: language model, contacts.
_FAIR_ESM_IGNORED: Final = ("lm_head.", "contact_head.")
#: The same, pooler and classifier heads of fine-tuned models, and what rotary models keep of learned positions.
_HUGGING_FACE_IGNORED: Final = (
    "lm_head.",
    "contact_head.",
    "pooler.",
    "classifier.",
    "embeddings.position_ids",
    "embeddings.position_embeddings.weight",
)
_HUGGING_FACE_NAMES: Final = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.self.rotary_embeddings": "self_attn.rot_emb",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
_HUGGING_FACE_LAYER: Final = re.compile(r"^encoder\.layer\.(\d+)\.(.+)\.(weight|bias|inv_freq)$")
#: One set of frequencies for all layers; transformers 5 writes the second name, asterisk and all.
_SHARED_INV_FREQ: Final = (
    "rotary_embeddings.inv_freq",
    "encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
)
#: What config.json must say for the encoder to be ESM-2's, and what transformers assumes where it is silent.
_HUGGING_FACE_REQUIRED: Final = {
    "model_type": ("esm", None),
    "vocab_size": (VOCABULARY_SIZE, None),
    "position_embedding_type": ("rotary", "absolute"),
    "emb_layer_norm_before": (False, None),
    "hidden_act": ("gelu", "gelu"),
    "layer_norm_eps": (1e-5, 1e-12),
}


def read_checkpoint(path: Path) -> tuple[Esm2Config, dict[str, Tensor], str]:
    """Read an ESM-2 checkpoint: a fair-esm ``.pt`` file or a Hugging Face folder.

    Weights are mapped into memory, in the precision of the file, and read when used. Heads on top of the encoder
    are left out; any other key that is missing or surplus is an error. Code in a pickle is never run.

    Returns:
        sizes, state dict in canonical keys, and the source, ``fair-esm`` or ``huggingface``.

    Raises:
        InputMissingError: nothing there, or not readable.
        ModelError: not an ESM-2 checkpoint, damaged, or with something else than tensors in it.
    """
    path = Path(path)
    _require_readable(path)
    config, state, source = _read_hugging_face(path) if path.is_dir() else _read_fair_esm(path)
    _fill_inv_freq(config, state)
    _check_keys(path, config, state)
    return config, state, source


def load_model(path: Path, precision: str, device: torch.device | str) -> PackedEsm2:
    """The model of a checkpoint, ready to run. Errors are those of ``read_checkpoint`` and ``from_state``."""
    config, state, _ = read_checkpoint(path)
    return PackedEsm2.from_state(config, state, precision, device)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint, sorted by name; errors as for ``read_checkpoint``."""
    path = Path(path)
    _require_readable(path)
    if not path.is_dir():
        return [path]
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (path / single).is_file():
            return [path / single]
        if (path / index).is_file():
            return _indexed_files(path / index)
    raise ModelError(f"{path}: no model.safetensors or pytorch_model.bin in it; give a folder that holds the weights")


def _read_fair_esm(path: Path) -> tuple[Esm2Config, dict[str, Tensor], str]:
    content = _load_pickle(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path}: not a fair-esm checkpoint (no 'model' in it); give an ESM-2 .pt file or a folder")
    renamed = ((_FAIR_ESM_PREFIX.sub("", str(key)), value) for key, value in weights.items())
    return _fair_esm_config(path, content), _collect(path, renamed, _FAIR_ESM_IGNORED), FAIR_ESM


def _fair_esm_config(path: Path, content: Mapping[str, Any]) -> Esm2Config:
    """Sizes from ``cfg.model`` of ESM-2's own files, or from ``args`` of the older layout."""
    settings = _as_dict(_as_dict(content.get("cfg")).get("model")) or _as_dict(content.get("args"))
    settings = {key.removeprefix("encoder_"): value for key, value in settings.items()}
    sizes = [settings.get(key) for key in ("layers", "embed_dim", "attention_heads")]
    layers, embed_dim, heads = (size if type(size) is int else None for size in sizes)
    if layers is None or embed_dim is None or heads is None:
        raise ModelError(f"{path}: no layer count, width and heads in 'cfg' or 'args'; give an ESM-2 checkpoint")
    return Esm2Config(path.stem, layers, embed_dim, heads, bool(settings.get("token_dropout", True)))


def _as_dict(value: object) -> dict[str, Any]:
    return dict(vars(value) if isinstance(value, argparse.Namespace) else value if isinstance(value, Mapping) else {})


def _read_hugging_face(path: Path) -> tuple[Esm2Config, dict[str, Tensor], str]:
    config = _hugging_face_config(path)
    tensors: list[tuple[str, object]] = []
    for file in weight_files(path):
        content = _load_safetensors(file) if file.suffix == ".safetensors" else _load_pickle(file)
        if not isinstance(content, Mapping):
            raise ModelError(f"{file}: not a table of weights; download the model again")
        tensors += [(str(key).removeprefix("esm."), value) for key, value in content.items()]
    renamed = (pair for key, value in tensors for pair in _canonical_pairs(key, value, config.layers))
    return config, _collect(path, renamed, _HUGGING_FACE_IGNORED), HUGGING_FACE


def _hugging_face_config(path: Path) -> Esm2Config:
    settings = _load_json(path / "config.json")
    for key, (required, silent) in _HUGGING_FACE_REQUIRED.items():
        value = settings.get(key, silent)
        if value != required and not (required is False and value is None):
            raise ModelError(f"{path / 'config.json'}: {key} is {value!r}, but ESM-2 has {required!r}; give an ESM-2")
    sizes = [settings.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    layers, embed_dim, heads = (size if type(size) is int else 0 for size in sizes)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return Esm2Config(name, layers, embed_dim, heads, bool(settings.get("token_dropout", False)))


def _canonical_pairs(key: str, value: object, layers: int) -> Iterator[tuple[str, object]]:
    """Canonical name of one Hugging Face key; a name that is not known stays, and is reported as surplus."""
    if key in _SHARED_INV_FREQ:
        yield from ((inv_freq_key(index), value) for index in range(layers))
    elif key == "embeddings.word_embeddings.weight":
        yield "embed_tokens.weight", value
    elif (match := _HUGGING_FACE_LAYER.match(key)) and match[2] in _HUGGING_FACE_NAMES:
        yield f"layers.{int(match[1])}.{_HUGGING_FACE_NAMES[match[2]]}.{match[3]}", value
    else:
        yield key.removeprefix("encoder.") if key.startswith("encoder.emb_layer_norm_after.") else key, value


def _collect(path: Path, pairs: Iterable[tuple[str, object]], ignored: tuple[str, ...]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, value in pairs:
        if key.startswith(ignored):
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ModelError(f"{path}: '{key}' is not a tensor of floating-point numbers; give an ESM-2 checkpoint")
        if key in state:
            raise ModelError(f"{path}: '{key}' occurs twice; download the model again")
        state[key] = value
    return state


def _fill_inv_freq(config: Esm2Config, state: dict[str, Tensor]) -> None:
    """A checkpoint without any rotary frequencies, as some converters leave it, gets those of training."""
    keys = [inv_freq_key(index) for index in range(config.layers)]
    if not any(key in state for key in keys):
        state.update(dict.fromkeys(keys, trained_inv_freq(config.head_dim)))


def _check_keys(path: Path, config: Esm2Config, state: Mapping[str, Tensor]) -> None:
    shapes = expected_shapes(config)
    faults = {
        "lacks": sorted(shapes.keys() - state.keys()),
        "has beyond an ESM-2 encoder": sorted(state.keys() - shapes.keys()),
        "has in another shape": sorted(key for key in shapes if key in state and state[key].shape != shapes[key]),
    }
    found = [f"{fault} {_first_few(keys)}" for fault, keys in faults.items() if keys]
    if found:
        sizes = f"{config.layers} layers of width {config.embed_dim}"
        raise ModelError(f"{path}: not the ESM-2 of {sizes} that it says: it {', and '.join(found)}; download it again")


def _first_few(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def _indexed_files(index: Path) -> list[Path]:
    names = _load_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index}: no weight_map in it; download the model again")
    files = []
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name:
            raise ModelError(f"{index}: names a file outside its folder, {name!r}; download the model again")
        files.append(index.parent / name)
        if not files[-1].is_file():
            raise ModelError(f"{index.parent}: its index names {name}, which is not there; download the model again")
    return files


def _load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path.parent}: no {path.name} in it; give a Hugging Face folder or a fair-esm .pt file")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); download the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; download the model again")
    return content


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    def load() -> dict[str, Tensor]:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict

    return _reading(path, load, SafetensorError)


def _load_pickle(path: Path) -> Any:
    def load() -> Any:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; a file that cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))

    # A damaged pickle can raise anything at all on its way through the unpickler.
    return _reading(path, load, Exception)


def _reading(path: Path, load: Callable[[], _Content], damage: type[Exception]) -> _Content:
    try:
        return load()
    except (damage, OSError) as error:
        # torch seeks before the start of a truncated file, which is EINVAL; other OSErrors are not the file's fault.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ModelError(f"{path}: {_damage_report(error)}") from error


def _damage_report(error: Exception) -> str:
    """What is wrong and what to do, without torch's advice to read the file in spite of it."""
    called = re.search(r"(?:GLOBAL|global:?) +[`']?([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and called:
        return f"asks for {called[1]} to be run when read, which weights never need; do not trust this file"
    if isinstance(error, pickle.UnpicklingError):
        return "damaged, or holds something else than weights, which is never run; download it again"
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return f"damaged or not a checkpoint ({reason}); download it again"


def _require_readable(path: Path) -> None:
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        raise InputMissingError(f"{path}: {error.strerror}; check the path of the model") from error
