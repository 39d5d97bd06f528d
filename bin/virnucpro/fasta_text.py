"""FASTA as text, before its records are read: comments, and what ends the run wherever it stands in a file.

A line ends in a line feed, with or without a carriage return before it. Everything here is about text that some other
program would cut into other lines or records: to go on would give one record the residues of another, or lose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from virnucpro.errors import FastaFormatError

#: Begins a comment, at the start of any line.
COMMENT: Final = b";"
BOM: Final = b"\xef\xbb\xbf"

ZERO_BYTE: Final = ("a zero byte: binary data or UTF-16 text", "give plain ASCII or UTF-8 FASTA")
LONE_CR: Final = (
    "a carriage return that no line feed follows",
    "convert the line ends: tr '\\r' '\\n' <old.fasta >new.fasta",
)
_APART: Final = "or name the files that were joined one by one in --input"
_INSIDE: Final = (
    "'>' inside a sequence line: the line break before it is missing",
    f"put it in ('awk 1 a.fasta b.fasta' joins files with one), {_APART}",
)
_IN_COMMENT: Final = (
    "'>' inside a comment: the line break before it is missing",
    f"put it in, or a blank if this is no header ('awk 1 a.fasta b.fasta' joins files with one), {_APART}",
)
_BOM_INSIDE: Final = ("a byte order mark (BOM) before '>'", f"remove it, {_APART}")
_OTHER_LINE_END: Final = (
    "'>' in a header after a character that ends lines elsewhere (vertical tab, form feed, NEL, LS or PS)",
    "put a line feed in its place, or remove it",
)

#: Line ends of Unicode that are none here, where a header may follow.
OTHER_LINE_END: Final = re.compile(rb"(?:[\v\f\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9])>")
#: A header at the end of a comment is no part of it. Arrows, and records that are commented out, are.
_COMMENT_LINE: Final = re.compile(rb"^;(?![^\n]*[^\s;#=<>-]>\S)[^\n]*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fault:
    """Text that ends the run; ``line`` counts from 0 in what was looked at."""

    line: int
    message: str
    remedy: str

    def error(self, file: str, first_line: int) -> FastaFormatError:
        """The error, where what was looked at begins on ``first_line`` of ``file``, counted from 1."""
        return FastaFormatError(self.message, file=file, line=first_line + self.line, remedy=self.remedy)


def find_fault(lines: Iterable[bytes]) -> Fault | None:
    """Return the first fault in the lines of whole records, each with its end."""
    for number, line in enumerate(lines):
        what = None
        if b"\0" in line:
            what = ZERO_BYTE
        elif line.count(b"\r") > line.endswith(b"\r\n"):
            what = LONE_CR
        elif line.startswith(b">"):
            what = _OTHER_LINE_END if OTHER_LINE_END.search(line) else None
        elif line.startswith(COMMENT):
            what = None if _COMMENT_LINE.match(line) else _IN_COMMENT
        elif b">" in line:
            what = _BOM_INSIDE if line.startswith(BOM + b">") else _INSIDE
        if what:
            return Fault(number, *what)
    return None


def without_comments(body: bytes) -> tuple[bytes, int]:
    """Return whole lines without the comments among them, and how many these are."""
    return _COMMENT_LINE.subn(b"", body)
