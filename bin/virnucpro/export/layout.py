"""What every layout of an export is to the one loop that fills it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from virnucpro.errors import OutputError, UsageError, VirnucproError
from virnucpro.export.config import ExportConfig
from virnucpro.export.hdf5_storage import Hdf5Storage
from virnucpro.export.names import LINK_NAME_BYTES
from virnucpro.export.results import Records, Results, Vectors


def require(package: str, layout: str, distribution: str | None = None) -> Any:
    """A package that only an export needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        needed = f"--to {layout} needs {distribution or package}, which is not installed"
        raise UsageError(f"{needed}; install requirements-export.lock, or virnucpro-embed[export]") from None


@contextmanager
def writing(outdir: Path, layout: Layout | None = None) -> Iterator[None]:
    """Tell what keeps a package from writing by OutputError: PyTorch has no number for a full disk, HDF5 no end.

    Raises:
        OutputError: the block raised RuntimeError, or OSError that names no file.
    """
    try:
        yield
        if layout is not None:
            layout.raise_unwritten()
    except VirnucproError:
        raise
    except (OSError, RuntimeError) as error:
        if getattr(error, "filename", None) is not None:
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise OutputError(f"{outdir}: cannot be written ({first}); check free space and permissions") from error


class Layout(ABC):
    """Takes the rows in input order, and after them, where they are asked for, the vectors of single residues.

    Args:
        folder: an empty folder for the files.
        results: what is exported.
        config: what was asked for.
    """

    #: Bytes of a protein's name at most; None where the layout has no names, only rows and a list of ids.
    name_bytes: ClassVar[int | None] = LINK_NAME_BYTES
    #: Whether a protein's name is its whole header, unless the names asked for are others.
    named_by_header: ClassVar[bool] = False

    def __init__(self, folder: Path, results: Results, config: ExportConfig) -> None:
        self.folder, self.results, self.config = folder, results, config
        self._open = ExitStack()
        self._storages: list[Hdf5Storage] = []

    @property
    def columns(self) -> list[str]:
        """The columns of vectors that ``add`` gets: one, unless a layout has a place for all."""
        return [self.results.column(self.config.column)]

    @property
    def residue_columns(self) -> list[str]:
        """The columns that ``add_residues`` gets."""
        known = self.results.residue_columns()
        if len(known) == 1:
            return list(known.values())
        layer = (self.config.column or "").rpartition("_layer")[2]
        return [known[int(layer)]] if layer.isdigit() else [known[self.results.layers[-1]]]

    def new_hdf5(self, name: str, **options: Any) -> Any:
        """A new ``h5py.File`` in the folder, open as long as the layout.

        Raises:
            UsageError: h5py is not installed.
        """
        h5py = require("h5py", self.config.to)
        storage = Hdf5Storage(self.folder / name)
        self._open.callback(storage.close)
        self._storages.append(storage)
        return self._open.enter_context(h5py.File(storage, "w", **options))

    def raise_unwritten(self) -> None:
        """Raise what kept an HDF5 file from being written, which HDF5 was not told."""
        for storage in self._storages:
            storage.raise_error()

    @abstractmethod
    def add(self, records: Records) -> None:
        """Take the rows that come next."""

    def add_residues(self, rows: list[int], names: list[str], residues: Mapping[str, Vectors]) -> None:
        """Take one sequence's (residues, dim) vectors, for all proteins that have it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the files, whether all was written or not."""
        self._open.close()
