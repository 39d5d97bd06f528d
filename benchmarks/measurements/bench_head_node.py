"""What Nextflow itself costs as shards grow in number: stub runs on a scheduler that runs a job as it is submitted.

    python -m benchmarks.measurements.bench_head_node --shards 100 1000 10000

``sbatch``, ``squeue`` and ``scancel`` are three shell scripts made here. A job makes one folder and one empty file and
skips the wrapper that stages and traces, so that the machine is left to the head process: its channels, hashes, task
folders, scripts (a merge with a link for every shard among them), polling, trace, report and timeline. Seconds and
memory are those of the head process, sampled; the jobs' are left out.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
from benchmarks.environment import RESULTS, ROOT, append_csv, host_conditions

PIPELINE: Final = ("bin", "conf", "modules", "main.nf", "nextflow.config", "nextflow_schema.json")
SAMPLE_SECONDS: Final = 0.5
#: In place of the stub of SPLIT_FASTA, which makes two shards.
STUB: Final = r'''stub:
    """
    mkdir shards
    for i in \$(seq -f %05.0f 0 {last}); do printf '>0\\\\nMKV\\\\n' > shards/shard-\$i.fasta; done
    touch manifest.parquet rejected.tsv
    seq -f '{{"file": "shard-%05.0f.fasta", "sequences": 1, "residues": 3, "cost": 1}}' 0 {last} > shards.txt
    paste -sd, shards.txt > shards.json
    printf '{{"records": {shards}, "embedded": {shards}, ' > split_summary.json
    printf '"duplicate": 0, "reused": 0, "rejected": 0, "reuse": [], "shards": [' >> split_summary.json
    cat shards.json >> split_summary.json
    printf ']}}' >> split_summary.json
    """
}}
'''
CONFIG: Final = """
executor.queueSize = {at_once}
executor.pollInterval = '1 s'
executor.submitRateLimit = null
process.executor = 'slurm'
process {{
    withName: EMBED_SHARD {{
        maxForks = {at_once}
    }}
}}
"""
#: Programs of the scheduler: a job ends before its submission does.
SCHEDULER: Final = {
    "sbatch": """#!/bin/sh
: > .command.begin
bash -ue .command.sh > .command.out 2> .command.err
printf $? > .exitcode
echo "Submitted batch job $$"
""",
    "squeue": "#!/bin/sh\n",
    "scancel": "#!/bin/sh\n",
}


@dataclass
class Run:
    """One run; seconds and memory (MiB) are those of the head process, without its tasks."""

    shards: int
    retries: int
    queue_size: int
    wall_seconds: float
    head_cpu_seconds: float
    head_peak_mib: float


def run(shards: int, at_once: int, scratch: Path) -> Run:
    """Run the pipeline's stub with so many shards."""
    project = scratch / "project"
    project.mkdir()
    for name in PIPELINE:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, project / name)
    module = project / "modules" / "split_fasta" / "main.nf"
    stub = STUB.format(last=shards - 1, shards=shards)
    text, found = re.subn(r"stub:\n.*\Z", lambda _: stub, module.read_text(), flags=re.DOTALL)
    if not found:
        raise RuntimeError(f"{module}: no stub in it")
    module.write_text(text)
    config = scratch / "head.config"
    config.write_text(CONFIG.format(at_once=at_once))
    programs = scratch / "bin"
    programs.mkdir()
    for name, script in SCHEDULER.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    (scratch / "in.fasta").write_text(">a\nMKV\n")
    (scratch / "model.pt").touch()
    command = ["nextflow", "run", str(project), "-c", str(config), "-stub", "-ansi-log", "false", "--gpus", "0"]
    command += ["--input", "in.fasta", "--model", "model.pt", "--report", "false"]
    begun = time.perf_counter()
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=scratch, stdout=log, stderr=subprocess.STDOUT, env=environment)
        peak, cpu = watch(process)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError((scratch / "log").read_text()[-2000:])
    with (scratch / "results" / "pipeline_info" / "trace.txt").open() as trace:
        statuses = Counter(
            row["status"] for row in csv.DictReader(trace, delimiter="\t") if row["name"].startswith("EMBED_SHARD")
        )
    if statuses["COMPLETED"] != shards:
        raise RuntimeError(f"{statuses} where {shards} shards were to run")
    return Run(shards, statuses.total() - shards, at_once, seconds, cpu, peak)


def watch(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Wait for the end; return the peak memory (MiB) and the processor seconds of the process alone."""
    peak = cpu = 0.0
    done = threading.Event()

    def wait() -> None:
        process.wait()
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    while not done.wait(SAMPLE_SECONDS):
        try:
            head = psutil.Process(process.pid)
            peak = max(peak, head.memory_info().rss / 2**20)
            times = head.cpu_times()
            cpu = max(cpu, times.user + times.system)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return peak, cpu


def conditions() -> dict[str, object]:
    """Where and with what this was measured."""
    version = subprocess.run(["nextflow", "-v"], capture_output=True, text=True).stdout
    versions = {"nextflow": version.split()[-1] if version else "", "nxf_opts": os.environ.get("NXF_OPTS", "")}
    return host_conditions() | versions


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each number of shards, print and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--queue-size", type=int, default=1000, help="jobs submitted and not yet seen to end")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args(argv)
    for shards in options.shards:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            before = conditions()
            measured = run(shards, options.queue_size, Path(scratch))
        print(
            f"{shards} shards: {measured.wall_seconds:.1f} s, {1000 * measured.wall_seconds / shards:.1f} ms each; "
            f"head process {measured.head_cpu_seconds:.1f} s of CPU, peak {measured.head_peak_mib:.0f} MiB"
        )
        row = before | {
            name: f"{value:.1f}" if isinstance(value, float) else value for name, value in asdict(measured).items()
        }
        append_csv(RESULTS / "head-node.csv", [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
