"""What ``torch.save`` and safetensors leave, read without running code."""

from __future__ import annotations

import argparse
import collections
import errno
import functools
import pickle
import pickletools
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import torch

from virnucpro.device_errors import is_out_of_memory
from virnucpro.errors import ModelError
from virnucpro.model.file_formats import NO_ARCHIVE, is_safetensors, is_zip
from virnucpro.model.strangers import ADVICE

_Content = TypeVar("_Content")

#: The first pickle of a file that ``torch.save`` wrote before it wrote archives.
_OLD_MAGIC: Final = 0x1950A86A20F9469CFC6C
#: Names of Python's own that pickles of plain values ask for; an attack asks for others.
_VALUE_MODULES: Final = frozenset(
    ("argparse", "collections", "copyreg", "datetime", "decimal", "enum", "fractions", "functools", "pathlib", "uuid")
)
_VALUE_TYPES: Final = (
    bool,
    bytearray,
    bytes,
    complex,
    dict,
    float,
    frozenset,
    int,
    list,
    object,
    range,
    set,
    slice,
    str,
)
_VALUE_BUILTINS: Final = frozenset(("getattr", "tuple", *(kind.__name__ for kind in _VALUE_TYPES)))


class LeftUnread:
    """Stands for an object of another package beside the weights, such as a trainer's settings, of this class."""

    stands_for = ""

    def __init__(self, *arguments: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _LeftUnreadDict(LeftUnread):
    """The same for a kind of dict, which torch's unpickler fills only where it is none but a dict."""

    def __new__(cls, *arguments: object) -> Any:
        return collections.OrderedDict()


class _LeftUnreadList(LeftUnread):
    """The same for a kind of list."""

    def __new__(cls, *arguments: object) -> Any:
        return []


def load_weights(path: Path) -> Any:
    """The content of a file of weights: a safetensors file's table, or whatever ``torch.save`` was given.

    Tensors are mapped into memory and read when used. Objects of other classes become ``LeftUnread``.

    Raises:
        ModelError: damaged, a whole pickled object, or code that would have to run.
    """
    if is_safetensors(path) or (path.suffix == ".safetensors" and not is_zip(path)):
        return _load_safetensors(path)
    try:
        return _reading(path, lambda: _load_torch(path, {}))
    except ModelError as refused:
        if not isinstance(refused.__cause__, pickle.UnpicklingError):
            raise
        root = _root_class(path)
        strangers = _strangers(path, refused.__cause__)
        code = next(filter(_is_code, [*strangers, *([root] if root else [])]), None)
        if code:
            raise ModelError(f"{path}: {_code_report(code)}") from refused
        if root:
            raise whole_object(path, root) from refused
        if not strangers:
            raise
        return _load_beside_strangers(path, strangers)


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    def load() -> dict[str, torch.Tensor]:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict

    return _reading(path, load)


def _load_torch(path: Path, stand_ins: Mapping[str, type]) -> Any:
    """Read with torch's own unpickler of weights, which meets the stand-ins instead of what these names mean."""
    inert = [(stand_in, name) for name, stand_in in stand_ins.items()]
    with torch.serialization.safe_globals([argparse.Namespace, *inert]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols; a file that cannot be read raises
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))


def _load_beside_strangers(path: Path, strangers: list[str]) -> Any:
    """Read what has other objects beside the weights. What kind of object each is shows when it is filled."""
    bases: dict[str, type] = dict.fromkeys(strangers, LeftUnread)
    while True:
        stand_ins = {
            name: type(f"Stranger{i}_", (base,), {"stands_for": name}) for i, (name, base) in enumerate(bases.items())
        }
        try:
            return _reading(path, functools.partial(_load_torch, path, stand_ins))
        except ModelError as error:
            filled = re.search(r"Can only (SETITEM|append|extend).*Stranger(\d+)_", str(error.__cause__), re.DOTALL)
            name = list(bases)[int(filled[2])] if filled else ""
            further = _called(error.__cause__)
            if filled and bases[name] is LeftUnread:
                bases[name] = _LeftUnreadDict if filled[1] == "SETITEM" else _LeftUnreadList
                continue
            if further and further not in bases and not _is_code(further):
                bases[further] = LeftUnread
                continue
            if not isinstance(error.__cause__, pickle.UnpicklingError) or _is_plain_pickle(path) or further:
                raise
            raise ModelError(
                f"{path}: holds objects beside the weights ({', '.join(list(bases)[:3])}) that cannot be left aside "
                "without running code; where it was made, save the weights alone: "
                "torch.save(model.state_dict(), 'weights.pt')"
            ) from error


def _reading(path: Path, load: Callable[[], _Content]) -> _Content:
    try:
        return load()
    except Exception as error:  # a damaged pickle can raise anything at all on its way through the unpickler
        # torch seeks before the start of a truncated file, which is EINVAL; other OSErrors are not the file's fault.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # What a file's own tensors cannot need, it asks for because it is damaged.
        if is_out_of_memory(error, path.stat().st_size):
            raise
        raise ModelError(f"{path}: {_damage_report(path, error)}") from error


def _damage_report(path: Path, error: Exception) -> str:
    """What is wrong and what to do, without torch's advice to read the file in spite of it."""
    reason = str(error).strip().partition("\n")[0].partition(". ")[0][:200] or type(error).__name__
    if not _known_beginning(path):
        return f"not a file of weights; {ADVICE}"
    if isinstance(error, pickle.UnpicklingError):
        called = _called(error)
        if called:
            return _code_report(called)
        if _is_plain_pickle(path):
            return "a plain pickle, which is never run; save the weights with torch.save(model.state_dict(), ...)"
        return (
            "damaged, or holds something else than weights, which is never run; download it again, or where it was "
            "made save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
        )
    return f"damaged or cut short ({reason}); copy or download it again"


def _code_report(called: str) -> str:
    return (
        f"asks for {called} to be run when read, which weights never need and which is never run; "
        "do not trust this file"
    )


def _called(error: BaseException | None) -> str | None:
    """The name that torch's unpickler refused, with its module, which torch leaves out of Python's own."""
    found = re.search(r"(?:GLOBAL|global:)\s+(?:GLOBAL\s+)?[`']?([\w.]+)", str(error))
    return (found[1] if "." in found[1] else f"builtins.{found[1]}") if found else None


def _known_beginning(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(9)
    return path.suffix == ".safetensors" or head.startswith((b"PK", b"\x80")) or head[8:] == b"{"


def _is_plain_pickle(path: Path) -> bool:
    """A whole pickle, and not one of those that begin a file of ``torch.save``."""
    with path.open("rb") as stream:
        first = _operations(stream)
    return bool(first) and first[-1][0] == "STOP" and ("LONG1", _OLD_MAGIC) not in first


def _strangers(path: Path, error: BaseException) -> list[str]:
    """Names that an archive asks for beside those of weights, found without loading it."""
    if not is_zip(path):
        called = _called(error)
        return [called] if called else []
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged archive or pickle raises anything here too
        called = _called(error)
        return [called] if called else []


def _is_code(name: str) -> bool:
    """Whether a name is of Python itself and no class of plain values: what a file that attacks would ask for."""
    module, _, called = name.rpartition(".")
    if module in ("", "builtins"):
        return called not in _VALUE_BUILTINS
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and top not in _VALUE_MODULES


def whole_object(path: Path, root: str) -> ModelError:
    """The error for a model that was pickled as an object of this class."""
    return ModelError(
        f"{path}: a whole pickled object of class {root}, which cannot be read without running code; where it was "
        "made, save its weights alone: torch.save(model.state_dict(), 'weights.pt')"
    )


def _root_class(path: Path) -> str | None:
    """The class of the object in a file of ``torch.save``, where that is no container, found without loading it."""
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
                with archive.open(name) as stream:
                    return _first_global(_operations(stream))  # type: ignore[arg-type]  # readable, as genops needs
        with path.open("rb") as stream:
            first = _operations(stream)
            if ("LONG1", _OLD_MAGIC) not in first:
                return _first_global(first)
            for _ in ("protocol", "system"):
                _operations(stream)
            return _first_global(_operations(stream))
    except (*NO_ARCHIVE, StopIteration):
        return None


def _operations(stream: BinaryIO) -> list[tuple[str, object]]:
    """The operations of the next pickle of a stream, as far as they can be told."""
    found: list[tuple[str, object]] = []
    try:
        found.extend((operation.name, argument) for operation, argument, _ in pickletools.genops(stream))
    except Exception:  # genops raises many kinds of error for bytes that are no pickle
        return found
    return found


def _first_global(operations: list[tuple[str, object]]) -> str | None:
    """The name that a pickle begins with, unless that is of a container."""
    for position, (name, argument) in enumerate(operations[:12]):
        if name == "GLOBAL":
            found = str(argument).replace(" ", ".")
            return None if found.startswith(("collections.", "torch._utils", "torch._tensor")) else found
        if name == "STACK_GLOBAL":
            words = [str(value) for kind, value in operations[:position] if "UNICODE" in kind]
            return ".".join(words[-2:])
        if name not in ("PROTO", "FRAME", "MEMOIZE", "MARK", "BINPUT", "SHORT_BINUNICODE", "BINUNICODE"):
            return None
    return None
