"""Whole runs with a fault put into one of their tasks, each with its end: exit code, message, results, ``verify``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_runs import INJECTION, assert_whole, options
from launch import Launch, launch

pytestmark = pytest.mark.one_engine


@dataclass(frozen=True)
class Fault:
    """What happens in which program, at the first call of which function, and how the run ends."""

    program: str
    target: str
    action: str
    code: int = 0
    message: str = ""
    page: bool = True

    @property
    def name(self) -> str:
        return f"{self.program.removesuffix('.py')}-{self.action.replace('/', '-').replace(' ', '-')}"


SPLIT, EMBED, MERGE, REPORT = (f"{name}.py" for name in ("split_fasta", "embed_shard", "merge_embeddings", "report"))
IN_SPLIT, IN_EMBED = "virnucpro.split.split:_publish", "virnucpro.output.writer:ShardWriter.write"
BEFORE_EMBED, BEFORE_MERGE = "virnucpro.pipeline.embed:embed_shard", "virnucpro.merge.merge:merge"
IN_MERGE, IN_REPORT = "virnucpro.merge.parts:PartWriter.write", "virnucpro.report.report:page_content"

QUICK = [
    Fault(EMBED, IN_EMBED, "SIGKILL"),
    Fault(MERGE, BEFORE_MERGE, "damage shard-00000/embeddings.parquet", 65, "embed it again"),
]
LONG = [
    *(Fault(EMBED, IN_EMBED, sent) for sent in ("SIGTERM", "SIGINT", "SIGUSR2")),
    Fault(EMBED, IN_EMBED, "MemoryError"),
    Fault(EMBED, IN_EMBED, "ENOSPC"),
    Fault(EMBED, "virnucpro.pipeline.engine:Engine.forward", "OutOfMemoryError"),
    Fault(EMBED, "virnucpro.model.weights:open_checkpoint", "OutOfMemoryError"),
    Fault(EMBED, BEFORE_EMBED, "clock"),
    *(Fault(SPLIT, IN_SPLIT, sent) for sent in ("SIGKILL", "SIGTERM", "ENOSPC")),
    *(Fault(MERGE, IN_MERGE, sent) for sent in ("SIGKILL", "SIGUSR2", "ENOSPC", "clock")),
    Fault(REPORT, IN_REPORT, "SIGKILL", page=False),
    Fault(EMBED, BEFORE_EMBED, "damage shard-*.fasta", 65),
    Fault(EMBED, BEFORE_EMBED, "replace shard-*.fasta", 65),
    Fault(EMBED, BEFORE_EMBED, "delete shard-*.fasta", 66, "does not exist"),
    Fault(EMBED, BEFORE_EMBED, "damage model.json", 65, "model.json: not "),
    Fault(EMBED, BEFORE_EMBED, "delete model.json", 66, "model.json: not there"),
    Fault(SPLIT, "virnucpro.split.split:split", "damage model.json", 65, "model.json: not "),
    *(
        Fault(MERGE, BEFORE_MERGE, f"{kind} {name}", 65)
        for kind in ("damage", "replace")
        for name in (
            "manifest.parquet",
            "split_summary.json",
            "shard-00000/summary.json",
            "shard-00000/batches.parquet",
        )
    ),
    Fault(MERGE, BEFORE_MERGE, "damage shard-00000/gpu_metrics.parquet", 65),
    Fault(MERGE, BEFORE_MERGE, "replace shard-00000/embeddings.parquet", 65),
    Fault(MERGE, BEFORE_MERGE, "delete shard-00000/embeddings.parquet", 65),
    Fault(MERGE, BEFORE_MERGE, "damage rejected.tsv", 65),
]


def faulty_run(folder: Path, fault: Fault, *arguments: str) -> Launch:
    asked = {"program": fault.program, "target": fault.target, "action": fault.action, "once": str(folder / "once")}
    environment = {"PYTHONPATH": str(INJECTION), "VIRNUCPRO_FAULT": json.dumps(asked)}
    return launch(folder, *arguments, environment=environment)


def check(fault: Fault, folder: Path, model: Path, whole: Launch) -> None:
    report = () if fault.program == REPORT else ("--report", "false")
    run = faulty_run(folder, fault, *options(model), *report)
    assert (folder / "once").exists(), run.output
    assert run.code == fault.code, run.output
    assert "Traceback" not in run.output
    if fault.code:
        assert fault.message in run.last_lines.splitlines()[-1]
        assert run.last_lines.splitlines()[-1].startswith("No results: ")
        assert run.published() == []
        run = launch(folder / "again", *options(model), *report, "--outdir", str(run.results))
    assert_whole(Launch(run.code, run.output, folder), whole)
    assert (run.folder / "results" / "report" / "multiqc_report.html").exists() == (
        fault.program == REPORT and fault.page
    )


@pytest.mark.faults(
    "a shard's task is killed at its first batch; a byte of its vectors changes before the merge",
    "`nextflow run`",
    "it is tried again, and the results are whole; 65, nothing published",
)
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_the_end_of_a_run_with_a_fault(fault: Fault, tmp_path: Path, model: Path, whole: Launch) -> None:
    check(fault, tmp_path, model, whole)


@pytest.mark.faults_long
@pytest.mark.faults(
    "SIGKILL, SIGTERM, SIGINT, SIGUSR2, lack of memory on host and device, a full disk, a jumping clock in split, "
    "shard, merge and report; every file that one process hands to another damaged, cut short or deleted",
    "`nextflow run`",
    "tried again, whole results (without their page where REPORT was killed); 65 or 66, nothing published, and the "
    "next run into the same folder is whole",
)
@pytest.mark.parametrize("fault", LONG, ids=lambda fault: fault.name)
def test_the_end_of_a_run_with_another_fault(fault: Fault, tmp_path: Path, model: Path, whole: Launch) -> None:
    check(fault, tmp_path, model, whole)
