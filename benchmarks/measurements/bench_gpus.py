"""Several GPUs of one host against one, through the whole pipeline, and what a killed task does to the others.

    python -m benchmarks.measurements.bench_gpus proteins.fasta --model CHECKPOINT --out OUT --runs 1:44 4:44

Runs, each ``nextflow run`` with the local executor in a folder of its own:

- warm-up: the input once, on one GPU, so that kernels are compiled and weights are in the page cache;
- one for each GPUS:COPIES of --runs: that many copies of the input for each of so many GPUs, deduplication off. Every
  shard holds the same --shard-copies of them, and batches have the same --token-budget. What differs is the GPUs;
- kill: the largest run's first shards, one for each of its GPUs. Once all tasks have written a part of their vectors,
  one is killed by SIGKILL. Its second try has half the token budget, as any retry.

Throughput is the tokens of all shards over the embedding time (first batch's start to last one's end, summed over its
shards) of the device that has most of it; start-up stands apart. Efficiency is the throughput over as many times that
of one GPU, that of the whole run the records a second of the whole command likewise. Writes, after each run,
OUT/gpus.csv and OUT/gpus/ with the tasks, traces, run summary and the content of the report, from which
``benchmarks/pages/draw_page.py`` draws the page. A --scratch that is named is kept, and runs that ended there are not
run again. Ends with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, write_csv
from benchmarks.measurements.gpus_checks import (
    Check,
    Likeness,
    Task,
    by_device,
    compare_vectors,
    largest_gap,
    ledger_check,
    metrics_check,
    overlaps,
    rates,
    read_tasks,
    read_trace,
    task_rows,
    tries,
)
from benchmarks.measurements.gpus_kill import Killed, kill_one
from benchmarks.measurements.gpus_runs import Input, Pipeline, Plan, Run, repeat_fasta, say
from benchmarks.pages.draw_page import save_content

from virnucpro.report.report import page_content

#: What the project promises of several GPUs, as shares of one GPU's figures.
LEAST_EFFICIENCY = 0.97
LEAST_WHOLE_EFFICIENCY = 0.85
MOST_STARVED_PERCENT = 1.0
MOST_ENERGY_DIFFERENCE = 0.03
#: Of the tasks that a killed one leaves alone, and of a smaller batch.
MOST_GAP_SECONDS = 0.1
LEAST_COSINE = 0.99999
KILL = "kill"


class Record:
    """The files that go back, written anew after each run, so that a call cut short leaves what it has."""

    def __init__(self, out: Path, common: Mapping[str, object]) -> None:
        self._out, self._common = out, common
        self._rows: list[dict[str, object]] = []
        self._tasks: list[dict[str, Any]] = []
        self.failed: list[str] = []
        (out / "gpus").mkdir(parents=True, exist_ok=True)

    def add(
        self, run: Run, checks: Sequence[Check], figures: Mapping[str, object], killed: Sequence[Task] = ()
    ) -> None:
        """Print the checks; write the run's row, its tasks and its trace."""
        for check in checks:
            say(str(check))
        failed = [check.name for check in checks if not check.holds]
        self.failed += [f"{run.name}: {name}" for name in failed]
        tasks = read_tasks(run.metrics)
        measured: dict[str, object] = {"run": run.name, "gpus": run.gpus, "devices": len(by_device(tasks))}
        measured |= {"shards": len(tasks), "records": run.records, "tokens": sum(task.tokens for task in tasks)}
        measured |= {"wall_seconds": run.seconds, **rates(tasks), **figures}
        rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in measured.items()}
        say(", ".join(f"{key} {value}" for key, value in rounded.items()))
        self._rows.append(rounded | {"checks": len(checks), "failed": "; ".join(failed), **self._common})
        self._tasks += task_rows(run.name, killed, run.begun, "killed") + task_rows(run.name, tasks, run.begun)
        write_csv(self._out / "gpus.csv", self._rows)
        write_csv(self._out / "gpus" / "tasks.csv", self._tasks)
        shutil.copyfile(run.trace, self._out / "gpus" / f"trace-{run.name}.txt")
        shutil.copyfile(run.metrics / "run_summary.json", self._out / "gpus" / f"run_summary-{run.name}.json")


def alone_on_its_gpu(tasks: Sequence[Task]) -> Check:
    """No moment with two tasks on one GPU."""
    pairs = overlaps(tasks)
    counts = " and ".join(str(len(members)) for members in by_device(tasks).values())
    return Check("no two tasks on one GPU at a time", not pairs, f"{len(pairs)} overlap; {counts} tasks per GPU")


def devices_used(tasks: Sequence[Task], expected: int) -> Check:
    found = len(by_device(tasks))
    return Check(f"{expected} of the GPUs used", found == expected, f"{found} by their UUIDs")


def efficiencies(run: Run, one: Run) -> dict[str, float]:
    """Throughput and speed of the whole run, as shares of as many times one GPU's; energy a token over one GPU's."""
    ours, ones = rates(read_tasks(run.metrics)), rates(read_tasks(one.metrics))
    speed_up = ours["tokens_per_second"] / ones["tokens_per_second"]
    whole = (run.records / run.seconds) / (one.records / one.seconds)
    return {
        "speed_up": speed_up,
        "efficiency": speed_up / run.gpus,
        "whole_efficiency": whole / run.gpus,
        "energy_ratio": joules_per_token(run) / joules_per_token(one),
    }


def joules_per_token(run: Run) -> float:
    """Energy of the devices over all tokens; not a number where a device does not measure it."""
    summary = run.summary
    return (summary["energy_joules"] or math.nan) / summary["tokens"]


def measure(pipeline: Pipeline, given: Input, gpus: int, one: Run | None, record: Record) -> Run:
    """Make the run of so many GPUs, compare it with that of one, if there is one; returns it."""
    run = pipeline.run(str(gpus), given, gpus)
    tasks = read_tasks(run.metrics)
    starved = run.summary["pct_starved"]
    figures = {"records_per_gpu": run.records / gpus, "pct_starved": starved, "joules_per_token": joules_per_token(run)}
    checks = [
        ledger_check(run.results, given.records),
        metrics_check(run.results),
        devices_used(tasks, gpus),
        alone_on_its_gpu(tasks),
        Check(f"starved batches at most {MOST_STARVED_PERCENT} %", starved <= MOST_STARVED_PERCENT, f"{starved:.2f}"),
    ]
    if one is not None:
        found = efficiencies(run, one)
        fewer, more = sorted((run, one), key=lambda each: each.records)
        alike = Likeness.sum(compare_vectors(fewer.results, more.results).values())
        figures |= found | {"vectors_compared": alike.rows, "vectors_equal": alike.equal}
        checks += [*efficiency_checks(found, run, one), equal_vectors(alike, fewer.records)]
    record.add(run, checks, figures)
    return run


def equal_vectors(alike: Likeness, records: int) -> Check:
    return Check("vectors equal those of one GPU bit for bit", alike.rows == records and alike.all_equal, str(alike))


def efficiency_checks(found: Mapping[str, float], run: Run, one: Run) -> list[Check]:
    """What is promised of the throughput and energy, and of the whole run where each GPU has as much to do as one."""
    part, energy = found["efficiency"], found["energy_ratio"]
    checks = [
        Check(f"throughput at least {LEAST_EFFICIENCY} of linear", part >= LEAST_EFFICIENCY, f"{part:.4f}"),
        Check(
            f"energy a token within {MOST_ENERGY_DIFFERENCE:.0%} of one GPU's",
            abs(energy - 1) <= MOST_ENERGY_DIFFERENCE,
            f"{energy:.4f} times",
        ),
    ]
    if run.records == run.gpus * one.records:
        whole = found["whole_efficiency"]
        name = f"the whole run at least {LEAST_WHOLE_EFFICIENCY} of linear"
        checks.append(Check(name, whole >= LEAST_WHOLE_EFFICIENCY, f"{whole:.4f}"))
    return checks


def measure_kill(pipeline: Pipeline, given: Input, largest: Run, record: Record) -> None:
    """Run one shard for each GPU, kill one task, and look at what the others did meanwhile and at the end."""
    run = pipeline.kept(KILL)
    if run is None:
        started, process = pipeline.start(KILL, given, largest.gpus)
        killed = kill_one(process, given.shards, largest.summary["model"]["embed_dim"])
        run = pipeline.finish(started, process)
        if killed is None:
            record.add(run, [Check("a task was killed", False, "the run ended before all tasks were at work")], {})
            return
        killed.keep(run.folder / "killed.json")
    killed = Killed.kept(run.folder / "killed.json")
    say(f"killed {killed}")
    tasks = read_tasks(run.metrics)
    lost = killed.task(next(iter(by_device(tasks))).split()[0])
    gap = max(largest_gap(run.metrics, shard, killed.at) for shard in killed.others)
    alike = compare_vectors(run.results, largest.results)
    left_alone = Likeness.sum(found for shard, found in alike.items() if shard != killed.shard)
    figures = {
        "killed_after_seconds": killed.at - lost.started,
        "killed_rows": killed.rows,
        "gap_seconds_after_kill": gap,
        "vectors_compared": sum(found.rows for found in alike.values()),
        "vectors_equal": sum(found.equal for found in alike.values()),
        "retried_worst_cosine": alike[killed.shard].worst_cosine,
    }
    record.add(run, kill_checks(run, largest, given, killed, [*tasks, lost], gap, left_alone, alike), figures, [lost])


def kill_checks(
    run: Run,
    largest: Run,
    given: Input,
    killed: Killed,
    tasks: Sequence[Task],
    gap: float,
    left_alone: Likeness,
    alike: Mapping[int, Likeness],
) -> list[Check]:
    """What must hold after a kill; ``tasks`` has the killed try too."""
    trace = read_trace(run.trace)
    went = tries(trace, killed.shard)
    others = {shard: tries(trace, shard) for shard in killed.others}
    during = [task for task in tasks if task.shard in killed.others and task.started < killed.at < task.finished]
    same_shards = all(run.shard_text(shard) == largest.shard_text(shard) for shard in range(given.shards))
    retried = alike[killed.shard]
    return [
        Check("killed mid-run", 0 < killed.rows < given.records // given.shards, f"after {killed.rows:,} vectors"),
        Check("its shard failed once and was retried", went == [("FAILED", "137"), ("COMPLETED", "0")], str(went)),
        Check(
            "the other tasks ran on in their one try",
            len(during) == len(others) and set(map(tuple, others.values())) == {(("COMPLETED", "0"),)},
            str(others),
        ),
        Check("no other GPU stood still after the kill", gap <= MOST_GAP_SECONDS, f"longest gap {gap:.3f} s"),
        alone_on_its_gpu(tasks),
        ledger_check(run.results, given.records),
        Check("the shards are those of the largest run", same_shards, "compared byte by byte"),
        Check("vectors of the other tasks equal that run's bit for bit", left_alone.all_equal, str(left_alone)),
        Check(
            f"vectors of the retry, in smaller batches, have a cosine of {LEAST_COSINE}",
            retried.rows > 0 and retried.worst_cosine >= LEAST_COSINE,
            str(retried),
        ),
    ]


def conditions() -> dict[str, object]:
    """environment.conditions() from a process of its own: this one must not hold memory on a GPU."""
    program = "import json; from benchmarks.environment import conditions; print(json.dumps(conditions()))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout.splitlines()[-1]))


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="fair-esm checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", type=Plan.parse, default=[Plan(1, 44), Plan(2, 44)], metavar="GPUS:COPIES")
    parser.add_argument("--shard-copies", type=int, default=11, help="copies of the input in a shard")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--token-budget", type=int, default=65_536, help="tokens per batch")
    parser.add_argument("--scratch", type=Path, help="where the runs go and are kept; a folder that is removed if not")
    parser.add_argument("--config", type=Path, help="a further Nextflow configuration")
    options = parser.parse_args(argv)
    options.runs.sort(key=lambda plan: plan.gpus)
    if any(plan.gpus < 1 or plan.copies < 1 or plan.copies % options.shard_copies for plan in options.runs):
        parser.error("each run needs a GPU, and copies that are a multiple of --shard-copies")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run all and say what holds."""
    options = parse_options(argv)
    common = conditions() | {"model": options.model.stem, "precision": options.precision}
    common |= {"shard_copies": options.shard_copies, "token_budget": options.token_budget, "data": options.fasta.name}
    say(json.dumps(common))
    record = Record(options.out, common)
    with contextlib.ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpus-")))
        scratch.mkdir(parents=True, exist_ok=True)
        pipeline = Pipeline(options, scratch)
        pipeline.run("warm-up", repeat_fasta(options.fasta, 1, 1, scratch / "warm-up.fasta"), 1)
        one = run = None
        for plan in options.runs:
            copies = plan.gpus * plan.copies
            given = repeat_fasta(options.fasta, copies, copies // options.shard_copies, scratch / f"{plan.gpus}.fasta")
            run = measure(pipeline, given, plan.gpus, one, record)
            one = run if plan.gpus == 1 else one
        if run is not None and run.gpus > 1 and options.kill:
            part = repeat_fasta(options.fasta, run.gpus * options.shard_copies, run.gpus, scratch / "part.fasta")
            measure_kill(pipeline, part, run, record)
        if run is not None:
            save_content(page_content(run.results), options.out / "gpus" / "page.json.gz")
    say("everything holds" if not record.failed else f"FAILED: {'; '.join(record.failed)}")
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main())
