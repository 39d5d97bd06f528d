"""The soak in small: every fault ends as it may, leaves nothing, and descriptors and threads stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_processes import wait_until
from soak.long_run import SEED, Soak, Use, growth
from soak.shard_faults import FAULTS


@pytest.mark.faults(
    "shards in one process with a full disk, lack of memory, Ctrl-C, changed weights, a damaged or deleted shard and "
    "killed workers, at random by a seed",
    "`embed_shard`",
    "the code of each; true vectors where it is 0; descriptors and threads as before",
)
def test_no_fault_leaves_anything(tmp_path: Path) -> None:
    soak = Soak(tmp_path, SEED)
    # What a process opens once, at its first use, is open after the first round.
    before = _use_after_each_fault(soak)
    _use_after_each_fault(soak)
    # The thread that looks after children ends within a second of the last of them.
    for kind in ("descriptors", "threads"):
        assert wait_until(lambda kind=kind: getattr(Use.now(), kind) <= getattr(before, kind), 5), (kind, before)
    assert {end.partition(":")[0] for end in soak.ends} == set(FAULTS)


def _use_after_each_fault(soak: Soak) -> Use:
    for name in FAULTS:
        soak.embed(name, 2 if name in ("worker killed", "no memory on the device") else None)
    return Use.now()


@pytest.mark.parametrize("name", ["rss_mib", "shared_mib", "descriptors", "threads"])
def test_growth_is_seen(name: str) -> None:
    flat = {"rss_mib": 600.0, "shared_mib": 300.0, "descriptors": 7, "threads": 6}
    assert growth([Use(**flat) for _ in range(400)]) == []  # type: ignore[arg-type]
    used = [Use(**{**flat, name: flat[name] * (1 + shard / 2000)}) for shard in range(400)]  # type: ignore[arg-type]
    assert [each.split(" ")[0] for each in growth(used)] == [name]
