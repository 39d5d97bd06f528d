"""Facts that processes hand to each other as JSON: a dataclass writes them, and reads them checked field by field."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Final, NoReturn, Self, get_args, get_origin, get_type_hints

import xxhash

from virnucpro.errors import DataError, InputMissingError

#: The name of a file's own digest.
DIGEST: Final = "digest"
#: Metadata of a field that files of earlier versions lack, where it has its default.
ADDED_LATER: Final[Mapping[str, bool]] = MappingProxyType({"added_later": True})


class Record:
    """Base of frozen dataclasses that are JSON objects in a file.

    Every field stands in the file, whether it has a default or not: defaults only spare those who make a record. Beside
    them stands ``digest``, by which a changed byte is seen; a file that was written by hand need not have it.

    Class arguments:
        remedy: what to do about a file that is none; ends the message.
        layout: options of ``json.dumps``.
    """

    _remedy: ClassVar[str] = ""
    _layout: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, *, remedy: str | None = None, layout: dict[str, Any] | None = None) -> None:
        cls._remedy = cls._remedy if remedy is None else remedy
        cls._layout = cls._layout if layout is None else layout

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file.

        Raises:
            InputMissingError: there is no file.
            DataError: a field is missing, unknown or of another type.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
            if isinstance(content, dict) and content.pop(DIGEST, _digest(content)) != _digest(content):
                raise DataError("not as it was written: its content has another digest")
            record: Self = _record(cls, content, "")
            return record
        except FileNotFoundError:
            raise InputMissingError(f"{path}: not there; {cls._remedy}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}; {cls._remedy}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON ({error}); {cls._remedy}") from None

    def write(self, path: Path) -> None:
        """Write the record into a file, to the disk."""
        content = self.to_dict()
        text = json.dumps({**content, DIGEST: _digest(content)}, allow_nan=False, **self._layout)
        with path.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    def to_dict(self) -> dict[str, Any]:
        """The fields as the file holds them."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # every record is a dataclass


def _digest(content: dict[str, Any]) -> str:
    """xxh3_128 of the fields but for the digest itself."""
    fields_alone = {name: value for name, value in content.items() if name != DIGEST}
    return xxhash.xxh3_128_hexdigest(json.dumps(fields_alone, sort_keys=True).encode())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


@cache
def _kinds(record: type[Record]) -> dict[str, Any]:
    hints = get_type_hints(record)
    return {each.name: hints[each.name] for each in fields(record)}  # type: ignore[arg-type]  # as above


@cache
def _added_later(record: type[Record]) -> dict[str, Any]:
    later = [each for each in fields(record) if each.metadata == ADDED_LATER]  # type: ignore[arg-type]
    return {each.name: each.default if each.default_factory is MISSING else each.default_factory() for each in later}


def _record(kind: Any, content: object, where: str) -> Any:
    if not isinstance(content, dict):
        raise DataError(f"{where or 'its content'} is not a JSON object")
    prefix, kinds = f"{where}." if where else "", _kinds(kind)
    content = _added_later(kind) | content
    for name in sorted(kinds.keys() - content.keys()):
        raise DataError(f"{prefix}{name} is missing")
    for name in sorted(content.keys() - kinds.keys()):
        raise DataError(f"{prefix}{name} is not known here")
    return kind(**{name: _value(kinds[name], content[name], prefix + name) for name in kinds})


def _value(kind: Any, value: Any, where: str) -> Any:
    """``value`` if it is of this kind: a plain type, a record, ``X | None``, or a list or dict of these."""
    container, inside = get_origin(kind), get_args(kind)
    if container is UnionType:
        return None if value is None else _value(next(each for each in inside if each is not NoneType), value, where)
    if isinstance(kind, type) and issubclass(kind, Record):
        return _record(kind, value, where)
    if kind is not Any and type(value) not in (container or kind, int if kind is float else kind):
        raise DataError(f"{where} is {json.dumps(value)[:40]}, but must be {_words(kind)}")
    if container is list:
        return [_value(inside[0], each, f"{where}[{i}]") for i, each in enumerate(value)]
    if container is dict:
        return {name: _value(inside[1], each, f"{where}.{name}") for name, each in value.items()}
    return value


def _words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(kind) or ("a list" if get_origin(kind) is list else "a JSON object")
