"""What the export is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virnucpro.config import Config, option
from virnucpro.errors import UsageError

LAYOUTS: Final = ("uniprot", "bio_embeddings", "fair-esm", "npy", "h5ad", "scikit-bio", "faiss")
#: Layouts that have a place for the vectors of single residues.
RESIDUE_LAYOUTS: Final = ("uniprot", "bio_embeddings", "fair-esm", "scikit-bio")
METRICS: Final = ("cosine", "l2")


@dataclass(frozen=True)
class ExportConfig(Config):
    """What ``export`` does. Of several vector columns, all are written where the layout has a place for them."""

    results: Path = option("a finished run's folder")
    to: str = option("whose layout to write", choices=LAYOUTS)
    outdir: Path = option("made whole at the end, or not at all", flag="-o --outdir")
    column: str | None = option("the vectors to write, where a layout holds one of several", None)
    names: str = option("what names a protein: its id, or of sp|P12345|NAME P12345", "id", choices=("id", "accession"))
    per_residue: bool = option("write the vectors of single residues too", False)
    sequences: tuple[Path, ...] = option("scikit-bio: the input, where it lies elsewhere now", (), metavar="FASTA")
    metric: str = option("faiss: what is near; cosine scales the vectors to length 1", "cosine", choices=METRICS)
    overwrite: bool = option("replace an earlier export", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_residue and self.to not in RESIDUE_LAYOUTS:
            others = ", ".join(RESIDUE_LAYOUTS)
            raise UsageError(f"--per-residue: {self.to} holds one vector a protein; export to {others}")
        if self.column is not None and self.to == "fair-esm":
            raise UsageError("--column: a .pt of fair-esm holds all vectors of its protein; leave it out")
        if self.sequences and self.to != "scikit-bio":
            raise UsageError(f"--sequences: {self.to} holds no sequences; leave it out")
