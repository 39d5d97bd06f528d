"""Records sorted by destination out of core: appended to buckets, spilled to files, taken back bucket by bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]


class SpillBuckets:
    """Buckets of fixed-size records whose memory is bounded; what does not fit waits in one file per bucket.

    Everything is written and read front to back, so that slow random access (spinning disks, NFS) does not matter.

    Args:
        folder: where the files go; made at the first spill.
        dtype: of one record.
        memory_bytes: bytes kept in memory over all buckets.
    """

    def __init__(self, folder: Path, dtype: npt.DTypeLike, memory_bytes: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._memory_bytes = memory_bytes
        self._pending: dict[int, list[Records]] = {}
        self._bytes: dict[int, int] = {}
        self._total = 0
        self.spilled_bytes = 0

    def append(self, buckets: npt.NDArray[np.integer], records: Records) -> None:
        """Add each record to its bucket, keeping the order within a bucket."""
        if not len(records):
            return
        order = np.argsort(buckets, kind="stable")
        names, first = np.unique(buckets[order], return_index=True)
        for bucket, chosen in zip(names.tolist(), np.split(order, first[1:]), strict=True):
            self.add(bucket, records[chosen])

    def add(self, bucket: int, records: Records) -> None:
        """Add records to one bucket. They are kept, not copied: a view would keep all of its base in memory."""
        self._pending.setdefault(bucket, []).append(records)
        self._bytes[bucket] = self._bytes.get(bucket, 0) + records.nbytes
        self._total += records.nbytes
        if self._total > self._memory_bytes:
            self._spill()

    def take(self, bucket: int) -> Records:
        """Remove a bucket and return its records in the order they came."""
        pending = self._pending.pop(bucket, [])
        self._total -= self._bytes.pop(bucket, 0)
        path = self._path(bucket)
        if path.exists():
            pending.insert(0, np.fromfile(path, self._dtype))
            path.unlink()
        return np.concatenate(pending) if pending else np.empty(0, self._dtype)

    def _spill(self) -> None:
        """Write the largest buckets until half the memory is free: few long writes rather than many short ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for bucket in sorted(self._bytes, key=self._bytes.__getitem__, reverse=True):
            if self._total <= self._memory_bytes // 2:
                break
            with self._path(bucket).open("ab") as file:
                for records in self._pending.pop(bucket):
                    file.write(records.data)
            self.spilled_bytes += self._bytes[bucket]
            self._total -= self._bytes.pop(bucket)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket}.records"
