"""Text of users made harmless where it is shown: on a terminal, and in a cell of a table."""

from __future__ import annotations

import re
from typing import Final

#: Control characters, among them those that begin a terminal's commands; ends of lines; what turns text around.
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA: Final = ("=", "+", "-", "@")


def visible(text: str) -> str:
    """The text with every character that would do something, instead of being seen, as its escape: ``\\x1b``."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def table_cell(text: str) -> str:
    """One cell of a table on one line; what a spreadsheet would run begins with an apostrophe."""
    cell = visible(" ".join(text.replace("\t", " ").splitlines()))
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
