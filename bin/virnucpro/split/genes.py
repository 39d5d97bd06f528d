"""Genes of contigs, predicted by pyrodigal-gv: Prodigal's metagenomic mode with models of viruses and giant viruses."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from virnucpro.errors import UsageError
from virnucpro.split.places import Found

NO_GENE: Final = "no gene found"


def genes(contig: str, letters: bytes) -> Iterator[Found]:
    """Yield the proteins of a contig in Prodigal's order, under its names, with what it says of each as description.

    Args:
        contig: its id.
        letters: its nucleotides.
    """
    for number, gene in enumerate(_finder().find_genes(letters), 1):
        told = {
            "partial": f"{gene.partial_begin:d}{gene.partial_end:d}",
            "start_type": gene.start_type,
            "rbs_motif": gene.rbs_motif,
            "rbs_spacer": gene.rbs_spacer,
            "gc_cont": f"{gene.gc_cont:.3f}",
            "transl_table": gene.translation_table,
        }
        description = ";".join(f"{name}={value}" for name, value in told.items())
        residues = gene.translate().encode()
        yield Found(f"{contig}_{number}", description, residues, gene.strand > 0, gene.begin, gene.end)


def require_pyrodigal() -> None:
    """Say before the work that pyrodigal-gv is missing: the package alone does not bring it.

    Raises:
        UsageError: it is not installed in this Python.
    """
    if importlib.util.find_spec("pyrodigal_gv") is None:
        raise UsageError(
            f"--translate genes needs pyrodigal-gv, which is not there for {sys.executable}; pip install pyrodigal-gv, "
            "or install virnucpro-embed with its extra [contigs]"
        )


@cache
def _finder() -> Any:
    """One for each process: its models are a second's work to load.

    Raises:
        UsageError: as ``require_pyrodigal``.
    """
    require_pyrodigal()
    from pyrodigal_gv import ViralGeneFinder

    return ViralGeneFinder(meta=True)
