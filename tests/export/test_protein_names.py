"""Every protein gets a name of its own, whatever the ids are."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.export.names import FILE_NAME_BYTES, Names, accession, fitting

TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["a", "a_1", "a_2", "a_2_", "A", "", ".", "..", "_", "__", "a/1", "/", "record_1", "record_0"]),
        st.text(st.characters(blacklist_categories=("Cs",)), max_size=5),
        st.text("äx", min_size=225, max_size=240),
    ),
    max_size=12,
)


@given(TEXTS, st.integers(1, 5), st.sampled_from([str, str.casefold]))
def test_names_are_distinct_and_listed(texts: list[str], batch: int, alike: object) -> None:
    batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    listed = io.StringIO(newline="\n")
    names = Names(batches, FILE_NAME_BYTES, listed, alike)  # type: ignore[arg-type]
    given_names: list[str] = []
    for each in batches:
        first = len(given_names)
        given_names += names.assign(each, range(first, first + len(each)), each)
    assert len({alike(name) for name in given_names}) == len(texts)  # type: ignore[operator]
    for name in given_names:
        assert name and "/" not in name and name not in (".", "..") and len(f"{name}.pt".encode()) <= 255
    changed = [i for i, (name, text) in enumerate(zip(given_names, texts, strict=True)) if name != text]
    assert [int(line.split("\t")[0]) for line in listed.getvalue().split("\n")[1:-1]] == changed
    assert names.renamed == len(changed)
    for i, text in enumerate(texts):
        if fitting(text, FILE_NAME_BYTES) == text and text and text not in texts[:i] and alike is str:
            assert given_names[i] == text


@pytest.mark.parametrize(
    ("protein", "expected"),
    [
        ("sp|P12345|A_HUMAN", "P12345"),
        ("tr|A0A022YWF9-2|X_Y", "A0A022YWF9-2"),
        ("sp|P12345", "sp|P12345"),
        ("gb|P12345|", "gb|P12345|"),
        ("", ""),
    ],
)
def test_accessions(protein: str, expected: str) -> None:
    assert accession(protein) == expected
