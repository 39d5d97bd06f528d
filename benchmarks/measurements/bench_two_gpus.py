"""Two GPUs of one host against one, through the whole pipeline, and what a killed task does to the other GPU.

    python -m benchmarks.measurements.bench_two_gpus proteins.fasta --model esm2_t33_650M_UR50D.pt --out OUT

Runs, each ``nextflow run`` with the local executor in a folder of its own:

- warm-up: the input once, on one GPU, so that kernels are compiled and weights are in the page cache;
- one, two: the input --copies times, deduplication off, with --gpus 1 and 2. --copies is a multiple of --shards, so
  that every shard holds the same whole copies; batches have the same --token_budget. What differs is the GPUs;
- kill: the first two of these shards with --gpus 2. Once both tasks have written a part of their vectors, one is
  killed by SIGKILL. Its second try has half the token budget, as any retry.

Throughput is the tokens of all shards over the embedding time (first batch's start to last one's end, summed over its
shards) of the device that has most of it; start-up stands apart. Writes, after each run, OUT/two-gpus.csv and
OUT/two-gpus/ with the tasks, traces, run summary and the content of the report, from which
``benchmarks/pages/draw_page.py`` draws the page. Ends with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, write_csv
from benchmarks.measurements.two_gpus_checks import (
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
from benchmarks.measurements.two_gpus_kill import Killed, kill_one
from benchmarks.measurements.two_gpus_runs import Input, Pipeline, Run, repeat_fasta, say
from benchmarks.pages.draw_page import save_content

from virnucpro.report.report import page_content

#: What the project promises of two GPUs, of the tasks that a killed one leaves alone, and of a smaller batch.
LEAST_SPEED_UP = 1.95
MOST_GAP_SECONDS = 0.5
LEAST_COSINE = 0.99999


class Record:
    """The files that go back, written anew after each run, so that a call cut short leaves what it has."""

    def __init__(self, out: Path, common: Mapping[str, object]) -> None:
        self._out, self._common = out, common
        self._rows: list[dict[str, object]] = []
        self._tasks: list[dict[str, Any]] = []
        self.failed: list[str] = []
        (out / "two-gpus").mkdir(parents=True, exist_ok=True)

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
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in measured.items()}
        say(", ".join(f"{key} {value}" for key, value in rounded.items()))
        self._rows.append(rounded | {"checks": len(checks), "failed": "; ".join(failed), **self._common})
        self._tasks += task_rows(run.name, killed, run.begun, "killed") + task_rows(run.name, tasks, run.begun)
        write_csv(self._out / "two-gpus.csv", self._rows)
        write_csv(self._out / "two-gpus" / "tasks.csv", self._tasks)
        shutil.copyfile(run.trace, self._out / "two-gpus" / f"trace-{run.name}.txt")
        shutil.copyfile(run.metrics / "run_summary.json", self._out / "two-gpus" / f"run_summary-{run.name}.json")


def alone_on_its_gpu(tasks: Sequence[Task]) -> Check:
    """No moment with two tasks on one GPU."""
    pairs = overlaps(tasks)
    counts = " and ".join(str(len(members)) for members in by_device(tasks).values())
    return Check("no two tasks on one GPU at a time", not pairs, f"{len(pairs)} overlap; {counts} tasks per GPU")


def devices_used(tasks: Sequence[Task], expected: int) -> Check:
    found = len(by_device(tasks))
    return Check(f"{expected} of the GPUs used", found == expected, f"{found} by their UUIDs")


def measure_one_and_two(pipeline: Pipeline, given: Input, record: Record, out: Path) -> Run:
    """Run on one GPU, then on two; compare; returns the latter."""
    one = pipeline.run("one", given, 1)
    tasks = read_tasks(one.metrics)
    ledger, joined = ledger_check(one.results, given.records), metrics_check(one.results)
    record.add(one, [ledger, joined, devices_used(tasks, 1), alone_on_its_gpu(tasks)], {})
    two = pipeline.run("two", given, 2)
    slow, fast = rates(tasks), rates(read_tasks(two.metrics))
    speed_up = fast["tokens_per_second"] / slow["tokens_per_second"]
    alike = Likeness.sum(compare_vectors(two.results, one.results).values())
    checks = [
        ledger_check(two.results, given.records),
        metrics_check(two.results),
        devices_used(read_tasks(two.metrics), 2),
        alone_on_its_gpu(read_tasks(two.metrics)),
        Check(f"throughput at least {LEAST_SPEED_UP} times one GPU's", speed_up >= LEAST_SPEED_UP, f"{speed_up:.3f}"),
        Check(
            "vectors equal those of one GPU bit for bit", alike.rows == given.records and alike.all_equal, str(alike)
        ),
    ]
    figures = {
        "speed_up": speed_up,
        "batches_wall_speed_up": slow["batches_wall_seconds"] / fast["batches_wall_seconds"],
        "wall_speed_up": one.seconds / two.seconds,
        "vectors_compared": alike.rows,
        "vectors_equal": alike.equal,
    }
    record.add(two, checks, figures)
    save_content(page_content(two.results), out / "two-gpus" / "page.json.gz")
    return two


def measure_kill(pipeline: Pipeline, given: Input, two: Run, record: Record) -> None:
    """Run two shards on two GPUs, kill one task, and look at what the other did meanwhile and at the end."""
    started, process = pipeline.start("kill", given, 2)
    dim = json.loads((two.metrics / "run_summary.json").read_text())["model"]["embed_dim"]
    killed = kill_one(process, given.shards, dim)
    if killed is not None:
        say(f"killed {killed}")
    run = pipeline.finish(started, process)
    tasks = read_tasks(run.metrics)
    if killed is None:
        record.add(run, [Check("a task was killed", False, "the run ended before both tasks were at work")], {})
        return
    lost = killed.task(next(iter(by_device(tasks))).split()[0])
    gap = max(largest_gap(run.metrics, shard, killed.at) for shard in killed.others)
    alike = compare_vectors(run.results, two.results)
    left_alone = Likeness.sum(found for shard, found in alike.items() if shard != killed.shard)
    figures = {
        "killed_after_seconds": killed.at - lost.started,
        "killed_rows": killed.rows,
        "gap_seconds_after_kill": gap,
        "vectors_compared": sum(found.rows for found in alike.values()),
        "vectors_equal": sum(found.equal for found in alike.values()),
        "retried_worst_cosine": alike[killed.shard].worst_cosine,
    }
    record.add(run, kill_checks(run, two, given, killed, [*tasks, lost], gap, left_alone, alike), figures, [lost])


def kill_checks(
    run: Run,
    two: Run,
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
    same_shards = all(run.shard_text(shard) == two.shard_text(shard) for shard in range(given.shards))
    retried = alike[killed.shard]
    return [
        Check("killed mid-run", 0 < killed.rows < given.records // given.shards, f"after {killed.rows:,} vectors"),
        Check("its shard failed once and was retried", went == [("FAILED", "137"), ("COMPLETED", "0")], str(went)),
        Check(
            "the other task ran on in its one try",
            len(during) == len(others) and set(map(tuple, others.values())) == {(("COMPLETED", "0"),)},
            str(others),
        ),
        Check("the other GPU never stood still after the kill", gap <= MOST_GAP_SECONDS, f"longest gap {gap:.3f} s"),
        alone_on_its_gpu(tasks),
        ledger_check(run.results, given.records),
        Check("the shards are those of the run with two GPUs", same_shards, "compared byte by byte"),
        Check("vectors of the other task equal that run's bit for bit", left_alone.all_equal, str(left_alone)),
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
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--token-budget", type=int, default=65_536, help="tokens per batch")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where the runs go")
    parser.add_argument("--config", type=Path, help="a further Nextflow configuration")
    options = parser.parse_args(argv)
    if options.shards < 2 or options.copies % options.shards:
        parser.error("--copies must be a multiple of --shards, and these at least 2")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run all and say what holds."""
    options = parse_options(argv)
    common = conditions() | {"model": options.model.stem, "precision": options.precision}
    common |= {"copies": options.copies, "token_budget": options.token_budget, "data": options.fasta.name}
    say(json.dumps(common))
    record = Record(options.out, common)
    with tempfile.TemporaryDirectory(prefix="two-gpus-", dir=options.scratch) as name:
        scratch = Path(name)
        each = options.copies // options.shards
        warm = repeat_fasta(options.fasta, 1, 1, scratch / "warm-up.fasta")
        full = repeat_fasta(options.fasta, options.copies, options.shards, scratch / "full.fasta")
        part = repeat_fasta(options.fasta, 2 * each, 2, scratch / "part.fasta")
        pipeline = Pipeline(options, scratch)
        pipeline.run("warm-up", warm, 1)
        two = measure_one_and_two(pipeline, full, record, options.out)
        measure_kill(pipeline, part, two, record)
    say("everything holds" if not record.failed else f"FAILED: {'; '.join(record.failed)}")
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main())
