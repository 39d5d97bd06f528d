"""``-resume`` over a work folder that has lost files, or whose files were changed: whole results, or none and why."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_runs import assert_whole, options
from launch import Launch, launch

pytestmark = pytest.mark.one_engine


@dataclass(frozen=True)
class Spoiled:
    """Files of the work folder that are deleted or changed after a run, and how the next one with -resume ends."""

    name: str
    paths: tuple[str, ...]
    changed: bool = False
    code: int = 0
    message: str = ""
    anew: str = "MERGE_EMBEDDINGS"


LISTED = "digests.xxh128"
PART, KEPT, SHARD = "results/embeddings/part-00000.parquet", "shard-00000", "shards/shard-00000.fasta"
QUICK = [
    Spoiled("a part", (PART,), code=74, message="was changed or deleted after its task had made it"),
    Spoiled("a shard's vectors", (f"results/{LISTED}", f"{KEPT}/embeddings.parquet"), anew="EMBED_SHARD"),
]
LONG = [
    Spoiled("a changed part", (PART,), changed=True, code=74, message="was changed or deleted after"),
    Spoiled("metrics", ("results/metrics/gpu_metrics.parquet",), code=74, message="metrics/gpu_metrics.parquet was"),
    Spoiled("the ledger", ("manifest.parquet",), anew="SPLIT_FASTA"),
    Spoiled("a shard", (SHARD,), code=66, message="run again with -resume, which splits anew", anew="SPLIT_FASTA"),
]


def spoil(run: Launch, spoiled: Spoiled) -> None:
    for name in spoiled.paths:
        # Tasks link to what others made.
        found = list({path.resolve() for path in (run.folder / "work").glob(f"*/*/{name}")})
        assert len(found) == 1, found
        if spoiled.changed:
            content = bytearray(found[0].read_bytes())
            content[len(content) // 2] ^= 2
            found[0].write_bytes(content)
        else:
            found[0].unlink()


def check(spoiled: Spoiled, folder: Path, model: Path, whole: Launch) -> None:
    arguments = [*options(model), "--report", "false"]
    first = launch(folder, *arguments)
    assert first.code == 0, first.output
    shutil.rmtree(first.results)
    spoil(first, spoiled)
    again = launch(folder, *arguments, "-resume")
    assert again.code == spoiled.code, again.output
    if spoiled.code:
        assert spoiled.message in again.last_lines.splitlines()[-1]
        assert again.published() == []
        again = launch(folder, *arguments, "-resume")
    assert_whole(again, whole)
    assert again.statuses()[spoiled.anew] == {"COMPLETED"}
    assert again.statuses()["DESCRIBE_MODEL"] == {"CACHED"}


@pytest.mark.faults(
    "a part of the results, or a shard's vectors, deleted from the work folder, then `-resume`",
    "`nextflow run`",
    "computed anew, at once or after 74 and another `-resume`; whole results",
)
@pytest.mark.parametrize("spoiled", QUICK, ids=lambda spoiled: spoiled.name)
def test_what_was_deleted_from_the_work_folder(spoiled: Spoiled, tmp_path: Path, model: Path, whole: Launch) -> None:
    check(spoiled, tmp_path, model, whole)


@pytest.mark.faults_long
@pytest.mark.faults(
    "results, metrics, ledger or shards changed in the work folder or deleted from it, then `-resume`",
    "`nextflow run`",
    "as above, after 66 or 74 where anything ends the run",
)
@pytest.mark.parametrize("spoiled", LONG, ids=lambda spoiled: spoiled.name)
def test_what_else_was_spoiled_in_the_work_folder(spoiled: Spoiled, tmp_path: Path, model: Path, whole: Launch) -> None:
    check(spoiled, tmp_path, model, whole)


@pytest.mark.faults_long
@pytest.mark.faults(
    "residues of a shard deleted from the work folder, then `-resume`",
    "`nextflow run`",
    "65, with the folder; once that is removed whole results",
)
def test_the_folder_that_a_message_names_is_the_one_to_remove(tmp_path: Path, model: Path, whole: Launch) -> None:
    arguments = [*options(model), "--report", "false", "--per_residue"]
    first = launch(tmp_path, *arguments)
    spoil(first, Spoiled("", (f"results/{LISTED}", f"{KEPT}/residues/part-00000.parquet")))
    again = launch(tmp_path, *arguments, "-resume")
    assert again.code == 65, again.output
    found = re.search(rf"error: .*?(/\S+/work/\S+/{KEPT})\S*: .*embed it again", again.last_lines)
    assert found, again.last_lines
    shutil.rmtree(found[1])
    assert_whole(launch(tmp_path, *arguments, "-resume"), whole)
