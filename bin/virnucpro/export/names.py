"""What a layout calls each protein: its id where that can be a name and no other protein has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TextIO

import numpy as np
import xxhash

from virnucpro.plain_text import table_cell

#: Bytes of a name in a folder of the usual file systems, less ``.pt`` and what tells two names apart.
FILE_NAME_BYTES: Final = 230
#: Links of HDF5 files take more; nobody types it.
LINK_NAME_BYTES: Final = 1000
RENAMED_HEADER: Final = "ordinal\tid\tname\treason\n"

_UNFIT: Final = re.compile(r"[/\x00-\x1f\x7f]")
_ACCESSION: Final = re.compile(r"(?:sp|tr)\|([A-Z0-9-]+)\|")


def accession(protein: str) -> str:
    """P12345 of ``sp|P12345|NAME``; any other id as it is."""
    found = _ACCESSION.match(protein)
    return found[1] if found else protein


def fitting(text: str, limit: int) -> str:
    """The text as a name of a file or an HDF5 link: no slash or control character in it, not too long, not ``.``."""
    name = _UNFIT.sub("_", text)
    if len(name) > limit or len(name.encode()) > limit:
        name = name.encode()[:limit].decode(errors="ignore")
    return name.replace(".", "_") if name in (".", "..") else name


class Names:
    """Gives every protein a name of its own, in bounded memory: 8 bytes a protein, and a byte for each shared name.

    A text that can be a name is one, for the first protein that has it. Others get their ordinal behind it; a protein
    without an id is called record_ and its ordinal.

    Args:
        texts: what would be the names, twice the same: batch after batch.
        limit: bytes of a name at most.
        renamed: takes a line for each protein that is called otherwise than its text.
        alike: maps names to the same text that the layout cannot hold together.
    """

    def __init__(
        self, texts: Iterable[Sequence[str]], limit: int, renamed: TextIO, alike: Callable[[str], str] = str
    ) -> None:
        self._limit, self._renamed, self._alike = limit, renamed, alike
        self.renamed = 0
        renamed.write(RENAMED_HEADER)
        hashes = [np.array([self._hash(fitting(text, limit)) for text in batch], np.uint64) for batch in texts]
        self._known, counts = np.unique(np.concatenate([*hashes, np.empty(0, np.uint64)]), return_counts=True)
        self._shared = self._known[counts > 1]
        self._taken = np.zeros(len(self._shared), np.bool_)

    def assign(self, texts: Sequence[str], ordinals: Sequence[int], ids: Sequence[str]) -> list[str]:
        """The names of the proteins that come next."""
        return [self._assign(*each) for each in zip(texts, ordinals, ids, strict=True)]

    def _assign(self, text: str, ordinal: int, protein: str) -> str:
        name = fitting(text, self._limit)
        reason = "" if name == text else "cannot be a name here"
        if not name:
            name, reason = self._unheard_of(f"record_{ordinal}"), "no id"
        elif (place := self._place(name)) is not None:
            if reason or self._taken[place]:
                name, reason = self._unheard_of(f"{name}_{ordinal}"), reason or "an earlier protein has the same"
            else:
                self._taken[place] = True
        if reason:
            self.renamed += 1
            cells = (str(ordinal), table_cell(protein), table_cell(name), reason)
            self._renamed.write("\t".join(cells) + "\n")
        return name

    def _place(self, name: str) -> int | None:
        """Where a name stands among those that several proteins would have."""
        value = self._hash(name)
        place = int(np.searchsorted(self._shared, value))
        return place if place < len(self._shared) and self._shared[place] == value else None

    def _unheard_of(self, name: str) -> str:
        """The name, with underscores behind it as long as another protein would have it."""
        while self._is_known(name):
            name += "_"
        return name

    def _is_known(self, name: str) -> bool:
        value = self._hash(name)
        place = int(np.searchsorted(self._known, value))
        return place < len(self._known) and bool(self._known[place] == value)

    def _hash(self, name: str) -> np.uint64:
        return np.uint64(xxhash.xxh3_64_intdigest(self._alike(name).encode()))
