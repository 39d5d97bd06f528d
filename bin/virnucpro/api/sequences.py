"""What callers hold as sequences, by the rules that the pipeline has for FASTA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MappingView, Set
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from virnucpro.errors import DataError, InputMissingError, UsageError
from virnucpro.fasta import Record, Rejected, normalised, rejection, scan_records
from virnucpro.fasta_source import nucleotide_share
from virnucpro.plain_text import visible

#: A FASTA file, sequences by id, or sequences alone, whose ids are their places in the list.
Sequences: TypeAlias = str | os.PathLike[str] | Mapping[str, str] | Iterable[str]

#: Rejected records that an error or a warning names.
_REASONS_SHOWN: Final = 3

#: Letters of what is no path that an error shows.
_SHOWN: Final = 60


def read_sequences(sequences: Sequences, *, gaps: str, alphabet: str) -> Iterator[Record | Rejected]:
    """Yield every record in order, also those to reject.

    Args:
        sequences: a path, a mapping of ids to sequences, or an iterable of sequences.
        gaps, alphabet: as the parameters of the pipeline.

    Raises:
        InputMissingError: no such file.
        FastaFormatError: the file is not FASTA.
        DataError: the sequences are of nucleotides.
        UsageError: what should be a text is none.
    """
    refuse_nucleotide = alphabet == "auto"
    if isinstance(sequences, str | os.PathLike):
        return scan_records(existing(sequences), refuse_nucleotide=refuse_nucleotide, gaps=gaps)
    named = named_texts(sequences)
    if refuse_nucleotide and (share := nucleotide_share(text.encode(errors="replace") for text in named.values())):
        remedy = "give translate='genes' or translate='six_frame', or alphabet='protein' if that is what they are"
        raise DataError(f"nucleotide sequences ({share}); {remedy}")
    encoded = ((name, text.encode(errors="replace")) for name, text in named.items())
    return (normalised(ordinal, name, "", text, 0, gaps) for ordinal, (name, text) in enumerate(encoded))


def existing(path: str | os.PathLike[str]) -> Path:
    """The path that a text or a path names.

    Raises:
        InputMissingError: nothing is where the text says; it may be a sequence, which goes into a list.
    """
    found = Path(path)
    if not isinstance(path, str):
        return found
    try:
        missing = not path or not (found.exists() or path == "-")
    except (OSError, ValueError):  # a name too long, or a zero byte
        missing = True
    if missing:
        text = visible(path)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise InputMissingError(f"'{shown}': no such file; check the path, or put a sequence into a list: [sequence]")
    return found


def named_texts(sequences: Mapping[str, str] | Iterable[str]) -> Mapping[str, str]:
    """Sequences by id, which is the place of one that has none.

    Raises:
        UsageError: an id or a sequence is no text, or what holds them is none of what has them in order.
    """
    if (remedy := _remedy(sequences)) is not None:
        raise UsageError(f"sequences are of type {type(sequences).__name__}; {remedy}")
    named = sequences if isinstance(sequences, Mapping) else {str(i): text for i, text in enumerate(sequences)}
    for name, text in named.items():
        if not isinstance(name, str) or not isinstance(text, str):
            kinds = f"{type(name).__name__} and {type(text).__name__}"
            raise UsageError(f"sequence '{name}': id and sequence are {kinds}; give both as str")
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UsageError(f"sequence '{visible(name)}': an id that is no text in UTF-8; give it another")
    return named


def _remedy(sequences: object) -> str | None:
    """What to give in the place of things that would be iterated over as what they are not."""
    if hasattr(sequences, "read"):
        return "give the file's path"
    if hasattr(type(sequences), "seq") or hasattr(type(sequences), "reverse_complement"):
        return "one sequence of Biopython's: give a list, [str(sequence)], or a mapping, {record.id: str(record.seq)}"
    if getattr(sequences, "ndim", 1) == 0:
        return "give a list of sequences"
    if isinstance(sequences, Set) and not isinstance(sequences, MappingView):
        return "a set has no order, so that no row would be known by its place: give a list or a mapping"
    if hasattr(type(sequences), "columns"):
        return "give its column of sequences, or a mapping: dict(zip(ids, sequences))"
    if isinstance(sequences, bytes | bytearray) or not isinstance(sequences, Iterable):
        return "give a list of sequences, a mapping of ids to sequences, or the path of a FASTA file"
    return None


def in_words(rejected: Iterable[Rejected]) -> str:
    """The first few rejected records, each with its reason."""
    records = iter(rejected)
    shown = [visible(rejection(each.id, each.reason)) for each in islice(records, _REASONS_SHOWN)]
    return "; ".join(shown) + (" and so on" if next(records, None) else "")
