"""The ESM-2 alphabet and a tokeniser that costs a handful of C calls a batch, whatever the number of residues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

#: Token of each index, in the order of the published checkpoints' embedding rows.
VOCABULARY: Final = (
    "<cls>", "<pad>", "<eos>", "<unk>",
    "L", "A", "G", "V", "S", "E", "R", "T", "I", "D", "P", "K", "Q", "N", "F", "Y", "M", "H", "W", "C",
    "X", "B", "U", "Z", "O", ".", "-", "<null_1>", "<mask>",
)  # fmt: skip
CLS: Final = 0
PAD: Final = 1
EOS: Final = 2
UNK: Final = 3
X: Final = 24
MASK: Final = 32
TOKEN_TO_INDEX: Final[Mapping[str, int]] = {token: index for index, token in enumerate(VOCABULARY)}

#: Letter of each index; tokens of more than one character are in no sequence.
_LETTERS: Final = np.frombuffer(bytes(ord(token[0] if len(token) == 1 else "?") for token in VOCABULARY), np.uint8)

# Any two characters: they only keep the places that <cls> and <eos> then take.
_PLACES_OF_EOS_AND_CLS = "XX"


def translation_table(token_to_index: Mapping[str, int], unknown: int) -> bytes:
    """Return the 256 bytes that map a character's code to its token; lower case counts as upper case.

    Args:
        token_to_index: an alphabet; tokens of more than one character (``<mask>``) are never parsed from sequence text.
        unknown: token of every other character.

    Raises:
        ValueError: a token index does not fit into a byte.
    """
    if not all(0 <= index < 256 for index in (*token_to_index.values(), unknown)):
        raise ValueError("an alphabet with token indices outside 0..255 cannot be tokenised; give a protein alphabet")
    table = bytearray([unknown] * 256)
    for token, index in token_to_index.items():
        if len(token) == 1 and token.isascii():
            table[ord(token.lower())] = index
            table[ord(token.upper())] = index
    return bytes(table)


#: Our own alphabet; every character outside it (J, ``*``, digits) becomes X, one token per character.
ESM2_TABLE: Final = translation_table(TOKEN_TO_INDEX, X)


def tokenise_packed(
    sequences: Sequence[str], table: bytes = ESM2_TABLE, cls: int = CLS, eos: int = EOS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Tokenise sequences one after the other, each between <cls> and <eos>.

    Args:
        sequences: S sequences, one character per residue.
        table: from :func:`translation_table`.
        cls: token put before each sequence.
        eos: token put after each sequence.

    Returns:
        tokens int64 (T,) with T = residues + 2 S, and offsets int32 (S + 1,): sequence s is ``tokens[o[s]:o[s + 1]]``.
    """
    offsets = np.zeros(len(sequences) + 1, dtype=np.int32)
    if not sequences:
        return np.empty(0, dtype=np.int64), offsets
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences)) + 2
    np.cumsum(lengths, out=offsets[1:], dtype=np.int32)
    text = f"X{_PLACES_OF_EOS_AND_CLS.join(sequences)}X"
    # 'replace' gives one '?' per character, so lengths hold for any text.
    codes = text.encode("ascii", errors="replace").translate(table)
    tokens = np.frombuffer(codes, dtype=np.uint8).astype(np.int64)
    tokens[offsets[:-1]] = cls
    tokens[offsets[1:] - 1] = eos
    return tokens, offsets


def sequence_keys(tokens: npt.NDArray[np.int64], offsets: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """The key of each sequence that these tokens are: xxh3_128 of its letters, as SPLIT_FASTA gives it.

    Args:
        tokens: (T,), as ``tokenise_packed`` makes them.
        offsets: (S + 1,).

    Returns:
        uint8 (S, 16).
    """
    text = memoryview(_LETTERS[tokens].tobytes())
    ends = offsets.tolist()
    keys = b"".join(xxhash.xxh3_128_digest(text[start + 1 : end - 1]) for start, end in pairwise(ends))
    return np.frombuffer(keys, np.uint8).reshape(-1, 16)


def tokenise(sequence: str) -> npt.NDArray[np.int64]:
    """Tokenise one sequence with our own alphabet: int64 (residues + 2,), <cls> first and <eos> last."""
    return tokenise_packed([sequence])[0]
