"""The rules of FASTA once more, a character at a time and with nothing of the package, to hold both readers against."""

from __future__ import annotations

from dataclasses import dataclass

LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
BLANKS = " \t\n\r\v\f"
BOM = "\xef\xbb\xbf"  # in Latin-1, as all text here
#: What Python and others take for line ends, and FASTA does not, as bytes of UTF-8.
OTHER_ENDS = ("\v", "\f", "\x1c", "\x1d", "\x1e", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9")
#: Encodings without a mark -> bytes of a character.
WIDE = {"UTF-32-LE": 4, "UTF-32-BE": 4, "UTF-16-LE": 2, "UTF-16-BE": 2}


@dataclass(frozen=True)
class RefusedError(Exception):
    """The file ends the run: on which line, and words that the message must hold."""

    line: int | None
    words: str


Row = tuple[int, str, str, str, int, int, int, str | None]


def read(data: bytes, gaps: str = "remove") -> tuple[list[Row], int]:
    """Rows as those of ``fasta_rows``, and the comment lines of a small file.

    Raises:
        RefusedError: the file ends the run.
    """
    for encoding, width in WIDE.items():
        if is_wide(data[: len(data) // width * width].decode(encoding, "replace")):
            raise RefusedError(None, f"text in {encoding[:6]}")
    text = data.decode("latin-1")
    text = text.removeprefix(BOM)
    if "\0" in text:
        raise RefusedError(text[: text.index("\0")].count("\n") + 1, "a zero byte")
    lines = text.split("\n")
    first = 0
    while first < len(lines) and (not lines[first].strip(BLANKS) or lines[first][0] in ";#"):
        lone_carriage_return(lines[first], first + 1, last=False)
        first += 1
    comments = sum(line[:1] in (";", "#") for line in lines[:first])
    if first == len(lines):
        return [], comments
    lone_carriage_return(lines[first], first + 1, last=False)
    if lines[first][0] != ">":
        raise RefusedError(first + 1, "not FASTA")
    records: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines[first:], first + 1):
        lone_carriage_return(line, number, last=number == len(lines))
        if line[:1] == ">":
            for end in OTHER_ENDS:
                if end + ">" in line:
                    raise RefusedError(number, "'>' in a header after a character that ends lines elsewhere")
            records.append((number, line[1:], ""))
        elif line[:1] == ";":
            for before, character, after in zip(line, line[1:], line[2:], strict=False):
                if character == ">" and before not in ";#=<>-" + BLANKS and after not in BLANKS:
                    raise RefusedError(number, "'>' inside a comment")
            comments += 1
        elif ">" in line:
            bom = line.startswith(BOM + ">")
            raise RefusedError(number, "a byte order mark (BOM) before '>'" if bom else "'>' inside a sequence line")
        else:
            records[-1] = (*records[-1][:2], records[-1][2] + line + "\n")
    return [row(ordinal, *record, gaps) for ordinal, record in enumerate(records)], comments


def is_wide(text: str) -> bool:
    """Whether a small file reads well so: with letters beyond ASCII only behind the first character of a header or a
    comment, and with something that is neither, unless all is ASCII."""
    if len(text) < 4 or any(c == "\ufffd" or (c < " " and c not in BLANKS) or c == "\x7f" for c in text):
        return False
    lines = [line for line in text.split("\n") if line[:1] not in ("", ">", ";", "#")]
    return text.isascii() or (text[0] == ">" and lines != [] and "".join(lines).isascii())


def lone_carriage_return(line: str, number: int, *, last: bool) -> None:
    """Refuse a carriage return anywhere but at the end, and there if the file ends without a line feed after it."""
    if "\r" in (line if last else line[:-1]):
        raise RefusedError(number, "a carriage return that no line feed follows")


def row(ordinal: int, line: int, header: str, body: str, gaps: str) -> Row:
    words = header.strip(BLANKS)
    end = next((i for i, character in enumerate(words) if character in BLANKS), len(words))
    name, description = utf8(words[:end]), utf8(words[end:].strip(BLANKS))
    sequence, unknown, removed, reason = residues(body, gaps)
    if reason:
        return ordinal, name, description, "", line, 0, 0, reason
    return ordinal, name, description, sequence, line, unknown, removed, None


def residues(body: str, gaps: str) -> tuple[str, int, int, str | None]:
    letters = [c.upper() if "a" <= c <= "z" else c for c in body if c not in BLANKS]
    starred = [c for c in letters if c not in "-."][-1:] == ["*"]
    symbols = "".join(c for c in letters if c not in LETTERS + "J*-.")
    if symbols:
        return "", 0, 0, f"symbol {utf8(symbols)[0]!a} in the sequence"
    if letters and ((letters[-1] == "." and not starred) or (gaps == "unknown" and letters[-1] in "*.")):
        letters.pop()
    gap = next((c for c in letters if c in "-."), None)
    if gap and gaps == "reject":
        return "", 0, 0, f"gap '{gap}' in the sequence"
    removed = 0
    if gaps == "remove":
        removed = sum(c in "-." for c in letters)
        letters = [c for c in letters if c not in "-."]
    if gaps != "unknown" and letters and letters[-1] == "*":
        letters.pop()
    if not letters:
        return "", 0, 0, "no residue left"
    unknown = sum(c in "J*-." for c in letters)
    return "".join("X" if c in "J*-." else c for c in letters), unknown, removed, None


def utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")
