"""Which files a path of a model means: a file of weights, a Hugging Face folder or one of its files, a hub cache."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from virnucpro.errors import InputMissingError, ModelError
from virnucpro.model.file_formats import content_format, folder_format, refuse_other_formats
from virnucpro.model.registry import HUB_OWNER, MODELS

CONFIG: Final = "config.json"
ADAPTER_CONFIG: Final = "adapter_config.json"
#: What to say of adapters that put tokens of their own before a sequence.
PROMPTS: Final = "of learned prompts, which cannot be merged into a model and are not computed here; give its base"
_PROMPT_TYPES: Final = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT")
_INDEX_SUFFIX: Final = ".index.json"
#: Weights in a folder, in the order in which they are looked for.
_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
#: ``model-00001-of-00002.safetensors``
_SHARD: Final = re.compile(r"^(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)$")
HUB_PREFIX: Final = "models--"
_MOST_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of one checkpoint.

    Args:
        name: what the model is called: the name of its file or folder; in a hub cache ORG/NAME of its repository, or
            an official name alone.
        weights: files of weights, sorted by name.
        config: the ``config.json`` that belongs to them, where there is one.
        revision: in a hub cache, the commit of the repository that they are of.
    """

    name: str
    weights: tuple[Path, ...]
    config: Path | None
    revision: str | None = None


def locate(path: Path) -> CheckpointFiles:
    """The files that a path of a model means; links are followed.

    Raises:
        InputMissingError: nothing there, or not readable.
        ModelError: no weights there, or weights of a kind that is not read; the message says which and what to do.
    """
    _require_readable(path)
    files = _in_folder(path) if path.is_dir() else _at_file(path)
    for file in files.weights:
        _require_readable(file)
        refuse_other_formats(file)
    return files


def load_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        what = content_format(path) or f"not JSON ({error}); download the model again"
        raise ModelError(f"{path}: {what}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; download the model again")
    return content


def _in_folder(path: Path) -> CheckpointFiles:
    path = _model_in_hub_cache(path)
    folder = _snapshot(path) if (path / "snapshots").is_dir() else path
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(_adapter(folder))
    weights = _weights_in(folder)
    if not weights:
        raise ModelError(f"{folder}: {folder_format(folder)}")
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{folder}: no {CONFIG} in it; add the one of this model, or give the path of {weights[0].name} instead, "
            "whose tensors may tell the sizes"
        )
    return CheckpointFiles(_folder_name(path), weights, folder / CONFIG, _revision(folder))


def _weights_in(folder: Path) -> tuple[Path, ...]:
    for single in _WEIGHTS:
        if (folder / single).is_file() or (folder / single).is_symlink():  # to something that may be gone
            return (folder / single,)
        if (folder / f"{single}{_INDEX_SUFFIX}").is_file():
            return _indexed_files(folder / f"{single}{_INDEX_SUFFIX}")
    return ()


def _at_file(path: Path) -> CheckpointFiles:
    """A file, with the folder that it lies in, or, where it is a link, that its target lies in."""
    if path.name == CONFIG:
        folders = [hop.parent for hop in _hops(path)]
        return _in_folder(next(filter(_weights_in, folders), folders[-1]))
    place = next((hop for hop in _hops(path) if (hop.parent / CONFIG).is_file()), path)
    folder = place.parent
    if (folder / ADAPTER_CONFIG).is_file() and place.name.startswith("adapter_"):
        raise ModelError(_adapter(folder))
    config = folder / CONFIG if (folder / CONFIG).is_file() else None
    shard = _SHARD.match(place.name)
    in_parts = shard is not None or place.name.endswith(_INDEX_SUFFIX)
    weights = _all_parts(path, shard) if in_parts else (path,)
    of_folder = config is not None and (shard or place.name.removesuffix(_INDEX_SUFFIX) in _WEIGHTS)
    return CheckpointFiles(_folder_name(folder) if of_folder else path.stem, weights, config, _revision(folder))


def _all_parts(path: Path, shard: re.Match[str] | None) -> tuple[Path, ...]:
    """The parts that an index names; the path is the index or one of its parts."""
    if shard is None:
        indices = [hop for hop in _hops(path) if hop.is_file()]
        return _indexed_files(next((hop for hop in indices if _parts_are_there(hop)), path))
    name = f"{shard['stem']}{shard['suffix']}{_INDEX_SUFFIX}"
    for hop in _hops(path):
        if (hop.parent / name).is_file():
            return _indexed_files(hop.parent / name)
    raise ModelError(
        f"{path}: one of {int(shard['count'])} parts of a model, and {name} is not beside it; "
        "give the folder that holds them all"
    )


def _parts_are_there(index: Path) -> bool:
    names = load_json(index).get("weight_map")
    return isinstance(names, dict) and all((index.parent / str(name)).is_file() for name in names.values())


def _indexed_files(index: Path) -> tuple[Path, ...]:
    names = load_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index}: no weight_map in it; download the model again")
    files = []
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name:
            raise ModelError(f"{index}: names a file outside its folder, {name!r}; download the model again")
        files.append(index.parent / name)
        if not files[-1].is_file():
            raise ModelError(f"{index.parent}: its index names {name}, which is not there; download the model again")
    return tuple(files)


def _model_in_hub_cache(path: Path) -> Path:
    """The folder of the only model of a hub cache, where ``path`` is the cache, its home or a model's snapshots."""
    if path.name == "snapshots" and path.parent.name.startswith(HUB_PREFIX):
        return path.parent
    for children in (f"{HUB_PREFIX}*", f"hub/{HUB_PREFIX}*"):
        found = [each for each in path.glob(children) if each.is_dir()]
        if len(found) == 1 and not _weights_in(path):
            return found[0]
    return path


def _snapshot(root: Path) -> Path:
    """The snapshot that a model's folder in a hub cache means: that of ``refs/main``, or the only one."""
    snapshots = sorted(each for each in (root / "snapshots").iterdir() if each.is_dir())
    main = root / "refs" / "main"
    if main.is_file():
        named = root / "snapshots" / main.read_text(errors="replace").strip()
        if named in snapshots:
            return named
        raise ModelError(f"{root}: refs/main names {named.name}, which is not in snapshots/; download the model again")
    if not snapshots:
        raise ModelError(f"{root}: a folder of a hub cache without a snapshot; download the model again")
    if len(snapshots) > 1:
        names = ", ".join(each.name for each in snapshots)
        raise ModelError(f"{root}: a hub cache with several snapshots, {names}; give the path of one in snapshots/")
    return snapshots[0]


def _folder_name(folder: Path) -> str:
    """The folder's name as given; in a hub cache, where that says nothing, the repository's."""
    real = folder.resolve()
    name = folder.name if folder.name not in ("", "..") else real.name
    if real.parent.name == "snapshots" and name == real.name:
        name = real.parent.parent.name
    if not name.startswith(HUB_PREFIX):
        return name
    repository = name.removeprefix(HUB_PREFIX).replace("--", "/", 1)
    official = repository.removeprefix(HUB_OWNER)
    return official if official in MODELS else repository


def _revision(folder: Path) -> str | None:
    """The commit whose snapshot in a hub cache a folder is."""
    real = folder.resolve()
    in_cache = real.parent.name == "snapshots" and real.parent.parent.name.startswith(HUB_PREFIX)
    return real.name if in_cache else None


def _hops(path: Path) -> Iterator[Path]:
    """A path and what it links to, one link after the other."""
    for _ in range(_MOST_LINKS):
        yield path
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)


def _adapter(folder: Path) -> str:
    settings = load_json(folder / ADAPTER_CONFIG)
    base = settings.get("base_model_name_or_path") or "the model it was trained on"
    if _weights_in(folder) and (folder / CONFIG).is_file():
        return (
            f"{folder}: a PEFT adapter for {base} beside a whole model; move {ADAPTER_CONFIG} and adapter_model.* "
            "elsewhere to use the model as it is, or merge the adapter into its base first"
        )
    kind = settings.get("peft_type", "of unknown type")
    if kind in _PROMPT_TYPES:
        return f"{folder}: a PEFT adapter ({kind}, for {base}) {PROMPTS}"
    return adapter_report(folder, f"{kind}, for {base}")


def adapter_report(path: Path, kind: str) -> str:
    """What to say of an adapter's file or folder; ``kind`` is what is known of it."""
    folder = path if path.is_dir() else path.parent
    return (
        f"{path}: a PEFT adapter ({kind}), not a whole model; merge it into its base first: "
        f"PeftModel.from_pretrained(base, '{folder}').merge_and_unload().save_pretrained('merged')"
    )


def _require_readable(path: Path) -> None:
    if path.exists() and not path.is_dir() and not path.is_file():
        raise InputMissingError(f"{path}: a pipe or device, not a file of weights; check the path of the model")
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        raise InputMissingError(f"{path}: {error.strerror}; check the path of the model") from error
