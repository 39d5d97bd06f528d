"""The proof that the weights which are loaded are those that were described, taken beside the loading."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from virnucpro.errors import ModelError
from virnucpro.file_identity import identity_of
from virnucpro.model.describe import weights_sha256
from virnucpro.model.weights import weight_files


class WeightsProof:
    """Hashes a checkpoint's weights on a thread of its own, from before they are loaded.

    Args:
        path: the checkpoint.

    Raises:
        InputMissingError, ModelError: there are no weights.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = weight_files(path)
        self._found = self._identities()
        thread = ThreadPoolExecutor(1, "weights-proof")
        self._digest = thread.submit(weights_sha256, self._files)
        thread.shutdown(wait=False)

    def check(self, expected: str, described_in: Path) -> None:
        """Compare with the SHA-256 of the description, once all that reads the weights has done so.

        Raises:
            ModelError: they are others, or changed in the meantime.
        """
        found = self._digest.result()
        if found != expected:
            raise ModelError(
                f"{self._path}: the weights are others than those that {described_in} describes (sha256 {found[:12]}, "
                f"not {expected[:12]}); describe them again with fetch_model.py"
            )
        if self._identities() != self._found:
            raise ModelError(f"{self._path}: the weights changed while they were used; run again once they are whole")

    def _identities(self) -> list[tuple[int, ...]]:
        return [identity_of(path.stat()) for path in self._files]
