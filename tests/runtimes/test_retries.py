"""Which failures go again, how often and with how many tokens per batch; on this machine, without a scheduler."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_run import PROJECT, Run, nextflow_command, pipeline_environment, run_pipeline

FAULTS = Path(__file__).parent / "faults"
LOST = 2147483647
RETRIED = {74, 75, 104, *range(130, 146), -1, LOST}
TOKENS = 256


def run_with_faults(directory: Path, inputs: Path, faults: str, *arguments: str, config: str = "") -> Run:
    """Run six shards, some of whose tries end as ``faults`` says (tests/runtimes/faults/embed_shard.py)."""
    extra = directory / "extra.config"
    extra.write_text(config)
    return run_pipeline(
        directory / "run",
        *("--gpus", "0", "--shard_residues", "240", "--token_budget", str(TOKENS), *arguments),
        inputs=inputs,
        environment={"VIRNUCPRO_TEST_FAULTS": faults, "PATH": f"{FAULTS}:{os.environ['PATH']}"},
        configs=(extra,),
    )


@pytest.mark.faults("tasks that are lost or killed", "`nextflow run` on a scheduler", "tried again; the same vectors")
def test_lost_tasks_go_again_and_the_vectors_are_right(tmp_path: Path, inputs: Path, local: Run) -> None:
    fates = {"75": "75", "74": "74", "KILL": "137", "TERM": "143", "104": "104", "hang": "-"}
    run = run_with_faults(
        tmp_path,
        inputs,
        " ".join(f"shard-{index:05}:1:{fate}" for index, fate in enumerate(fates)),
        config="process { withName: EMBED_SHARD { time = "
        "{ task.attempt == 1 && task.tag.startsWith('shard-00005') ? '2 sec' : '10 min' } } }\n",
    )
    assert run.code == 0, run.output
    for index, code in enumerate(fates.values()):
        assert run.tries(f"shard-{index:05}") == [("FAILED", code), ("COMPLETED", "0")], fates
    assert run.vectors() == local.vectors()


@pytest.mark.parametrize("before", ["ln() { kill -TERM $$; }", "ln -s here/and/there no/such/folder"])
def test_a_task_that_is_stopped_or_fails_before_its_program_begins_goes_again(
    before: str, tmp_path: Path, inputs: Path, local: Run
) -> None:
    """Nextflow's own script ends with 1 then, as a program does that has a fault."""
    config = f"process {{ withName: EMBED_SHARD {{ beforeScript = {{ task.attempt == 1 ? '{before}' : '' }} }} }}\n"
    run = run_with_faults(tmp_path, inputs, "", "--shard_residues", "100000", config=config.replace("$$", "\\$\\$"))
    assert run.code == 0, run.output
    assert run.tries("shard-00000") == [("FAILED", "1"), ("COMPLETED", "0")]
    assert run.vectors() == local.vectors()


def test_a_program_that_ends_with_1_is_not_started_again(tmp_path: Path, inputs: Path) -> None:
    run = run_with_faults(tmp_path, inputs, "shard-00000:1:1", "--shard_residues", "100000")
    assert run.code != 0
    assert run.tries("shard-00000") == [("FAILED", "1")]


@pytest.mark.faults(
    "lack of memory, again and again",
    "`nextflow run` on a scheduler",
    "half, a quarter, an eighth of the tokens; the same vectors",
)
def test_exit_code_75_halves_the_tokens_per_batch(tmp_path: Path, inputs: Path, local: Run) -> None:
    faults = "shard-00000:1:late-75 shard-00000:2:late-75 shard-00000:3:late-75"
    run = run_with_faults(tmp_path, inputs, faults)
    assert run.code == 0, run.output
    assert run.tries("shard-00000") == [("FAILED", "75")] * 3 + [("COMPLETED", "0")]
    folders = list((tmp_path / "run" / "work").glob("*/*/shard-00000"))
    summaries = {folder: json.loads((folder / "summary.json").read_text()) for folder in folders}
    budgets = {row["attempt"]: row["token_budget"] for row in summaries.values()}
    assert budgets == {1: TOKENS, 2: TOKENS // 2, 3: TOKENS // 4, 4: TOKENS // 8}
    for folder, summary in summaries.items():
        tokens = pq.read_table(folder / "batches.parquet")["tokens"].to_pylist()
        # Sequences of 60 residues are 62 tokens; one that is over the budget stands alone.
        assert max(tokens) == max(summary["token_budget"] // 62, 1) * 62
    assert run.vectors() == local.vectors()


@pytest.mark.parametrize("parser", ["v1", "v2"])
def test_the_configuration_decides_so_for_every_exit_code(parser: str, tmp_path: Path) -> None:
    script = tmp_path / "decide.nf"
    script.write_text("""
        workflow {
            ([-1, 2147483647] + (0..255)).each { code ->
                def strategy = workflow.session.config.process.errorStrategy.clone()
                strategy.delegate = [task: [exitStatus: code]]
                strategy.resolveStrategy = Closure.DELEGATE_FIRST
                println("decision ${code} ${strategy.call()}")
            }
        }
    """)
    result = subprocess.run(
        [*nextflow_command(), "-C", str(PROJECT / "nextflow.config"), "run", str(script), "-ansi-log", "false"],
        cwd=tmp_path,
        env=pipeline_environment({"NXF_SYNTAX_PARSER": parser}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("decision ")]
    assert len(lines) == 258, result.stdout + result.stderr
    assert {int(code) for code, strategy in lines if strategy == "retry"} == RETRIED
    assert {strategy for code, strategy in lines if int(code) not in RETRIED} == {"finish"}
