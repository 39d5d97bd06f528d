"""Finished results in the layout of another tool: one pass over the vectors, and one over those of residues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Final, TextIO

import pyarrow as pa

from virnucpro.errors import DataError
from virnucpro.export.anndata_file import AnnDataFile
from virnucpro.export.config import ExportConfig
from virnucpro.export.fair_esm import FairEsm
from virnucpro.export.faiss_index import FaissIndex
from virnucpro.export.folder import describe_export, new_export
from virnucpro.export.hdf5 import BioEmbeddings, UniProt
from virnucpro.export.layout import Layout, writing
from virnucpro.export.names import Names, accession
from virnucpro.export.numpy_files import NumpyFiles
from virnucpro.export.results import Records, Results, RowsByKey
from virnucpro.export.scikit_bio import ScikitBio

RENAMED_FILE: Final = "renamed.tsv"
_LAYOUTS: Final[dict[str, type[Layout]]] = {
    "uniprot": UniProt,
    "bio_embeddings": BioEmbeddings,
    "fair-esm": FairEsm,
    "npy": NumpyFiles,
    "h5ad": AnnDataFile,
    "scikit-bio": ScikitBio,
    "faiss": FaissIndex,
}


def export(config: ExportConfig) -> list[str]:
    """Write ``config.outdir`` and return what to tell the user.

    Raises:
        VirnucproError: the results cannot be read, or not be written in this layout; nothing is left behind.
        OSError: writing failed; nothing is left behind.
    """
    results = Results(config.results)
    if config.per_residue:
        results.residue_columns()
    with new_export(config.outdir, overwrite=config.overwrite) as folder:
        renamed = _fill(folder, results, config)
        facts: dict[str, object] = {"to": config.to, "results": str(config.results), "names": config.names}
        facts |= {"proteins": results.rows, "renamed": renamed, "vectors": results.metadata}
        describe_export(folder, facts)
    told = [f"{results.rows} proteins of {config.results} as {config.to} in {config.outdir}"]
    if renamed:
        told.append(f"{renamed} of them under another name than their own: see {config.outdir / RENAMED_FILE}")
    return told


def _fill(folder: Path, results: Results, config: ExportConfig) -> int:
    """Fill a folder, and return how many proteins have another name than their own."""
    with writing(config.outdir):
        layout = _LAYOUTS[config.to](folder, results, config)
    try:
        with (folder / RENAMED_FILE).open("w", encoding="utf-8", newline="\n") as stream:
            names = _names(layout, stream)
            kept = _add_rows(layout, names)
        if config.per_residue:
            _add_residues(layout, kept)
    except BaseException:
        with suppress(Exception):
            layout.close()
        raise
    with writing(config.outdir, layout):
        layout.close()
    if not names or not names.renamed:
        (folder / RENAMED_FILE).unlink()
    return names.renamed if names else 0


def _add_rows(layout: Layout, names: Names | None) -> pa.LargeStringArray:
    """Hand on all rows; returns what they are called, where that is needed again."""
    kept: list[pa.Array] = []
    for records in _records(layout, names):
        with writing(layout.config.outdir, layout):
            layout.add(records)
        if layout.config.per_residue:
            kept.append(pa.array(records.names, pa.large_string()))
    # One array: of several, each taking would make one.
    return pa.chunked_array(kept, pa.large_string()).combine_chunks()


def _records(layout: Layout, names: Names | None) -> Iterator[Records]:
    texts = chain.from_iterable(_texts(layout))
    first = 0
    for facts, vectors in layout.results.vectors(layout.columns):
        own = list(islice(texts, len(facts)))
        called = own if names is None else names.assign(own, facts["ordinal"].to_pylist(), facts["id"].to_pylist())
        yield Records(first, facts, vectors, own, called)
        first += len(facts)


def _texts(layout: Layout) -> Iterable[Sequence[str]]:
    """What would name each protein, batch after batch."""
    by_accession = layout.config.names == "accession"
    if layout.named_by_header and not by_accession:
        yield from layout.results.headers()
        return
    for batch in layout.results.facts_alone():
        ids = batch["id"].to_pylist()
        yield [accession(each) for each in ids] if by_accession else ids


def _names(layout: Layout, stream: TextIO) -> Names | None:
    if layout.name_bytes is None:
        return None
    if layout.named_by_header and _ignores_case(layout.folder):
        return Names(_texts(layout), layout.name_bytes, stream, str.casefold)
    return Names(_texts(layout), layout.name_bytes, stream)


def _ignores_case(folder: Path) -> bool:
    """Whether the folder's file system takes two names for one that differ in case."""
    probe = folder / "Case"
    probe.touch()
    found = (folder / "cASE").exists()
    probe.unlink()
    return found


def _add_residues(layout: Layout, names: pa.LargeStringArray) -> None:
    """Hand on the residues of all rows.

    Raises:
        DataError: a row has none.
    """
    results = layout.results
    rows_by_key, missing = RowsByKey(results), results.rows
    for key, residues in results.residues(layout.residue_columns):
        rows = rows_by_key.rows(key)
        if len(rows):
            called = names.take(pa.array(rows)).to_pylist()
            with writing(layout.config.outdir, layout):
                layout.add_residues(rows.tolist(), called, residues)
            missing -= len(rows)
    if missing:
        raise DataError(f"{results.folder}: no residues of {missing} proteins; run again with --per_residue")
