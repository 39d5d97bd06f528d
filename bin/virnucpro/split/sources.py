"""Which source reads an input: by its content, whatever its name."""

from __future__ import annotations

from pathlib import Path

from virnucpro.config import SplitConfig
from virnucpro.fasta_source import WHITE_SPACE, FastaSource
from virnucpro.fasta_text import BOM
from virnucpro.split.annotated import AnnotatedSource, annotated_format
from virnucpro.split.tables import Columns, open_table


def open_source(config: SplitConfig, path: Path, name: str) -> FastaSource:
    """The source of a file that is named ``name`` in messages.

    Raises:
        InputMissingError: the file is not there or cannot be opened.
        UsageError: a table lacks a column that was asked for.
    """
    contigs = config.translate is not None
    expected = "nucleotide" if contigs else "protein" if config.alphabet == "auto" else None
    source = FastaSource(path, name=name, expected=expected)
    head = source.head()
    format = annotated_format(head.removeprefix(BOM).lstrip(WHITE_SPACE))
    if format is not None:
        return AnnotatedSource(path, format, name=name, contigs=contigs)
    if config.id_column is None or config.sequence_column is None:
        return source
    columns = Columns(config.id_column, config.sequence_column)
    return open_table(path, head, columns, name=name, expected=expected) or source
