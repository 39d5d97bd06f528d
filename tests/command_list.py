"""What becomes of each command in the pages, so that a test runs or checks it: see ``COMMANDS``."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash
import yaml
from documented import PROJECT, code_blocks
from e2e.launch import launch_environment
from foreign_files import FASTA, TEXTS, tar

GPU, DAEMON, CLOUD = "a GPU", "a Docker daemon, or Apptainer", "an account in a cloud"
CLUSTER, ENVIRONMENT = "a Kubernetes cluster, but the stand-in of tests/k8s", "a second environment of some gigabytes"
TIME, VECTORS = "minutes to hours of a machine that does nothing else", "results/embeddings/part-00000.parquet"


@dataclass(frozen=True)
class Run:
    """Runs here, and leaves this file, which is removed before."""

    leaves: str | None


@dataclass(frozen=True)
class Convert:
    """Runs here beside these files, whose records are those of ``FASTA``, and leaves them in that FASTA file."""

    files: Mapping[str, bytes]
    leaves: str = "proteins.fasta"


@dataclass(frozen=True)
class Step:
    """A step of .ci/run."""


@dataclass(frozen=True)
class PartOf:
    """``make target``, a step of .ci/run, runs it: make's own list of what it would do holds ``text``."""

    target: str
    text: str


@dataclass(frozen=True)
class Lacks:
    """CI has not ``what``; ``check`` goes as far as one can without."""

    what: str
    check: Callable[[str, Path], None]


def bash(command: str, folder: Path) -> str:
    """What a command that ends well prints in the copy of the project."""
    environment = launch_environment({"NXF_ANSI_LOG": "false", "NXF_SYNTAX_PARSER": "v1"})
    environment["PATH"] = f"{folder}/path:{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def previewed(command: str, folder: Path) -> None:
    """Nextflow takes profiles and parameters, and gets as far as the first task."""
    here = command.replace("/path/to/virnucpro-embed", ".").replace("/scratch/$USER/", "")
    if "DEVICES=2,3 " in here:  # counted by the project's own default; the copy here, and its folder, have another
        here = f"cd docs && {here.replace('run .', f'run {PROJECT}').replace('proteins', '../proteins')}"
    gpus = "2 GPUs" if "DEVICES=2,3 " in here or "--gpus 2" in here else "1 GPU"
    assert f"compute {gpus}, fp16" in bash(f"{here} -preview", folder) or "docker" in here


def resolved(command: str, folder: Path) -> None:
    """The profile resolves, with the site's own file over it; its parameters are known."""
    (profile,) = re.findall(r"-profile (\S+)", command)
    (folder / "site.config").write_text(f"profiles {{ {profile} {{ }} }}\nparams.container_registry = 'registry/lab'\n")
    text = bash(f"nextflow -c site.config config -flat -profile {profile} .", folder)
    assert f"process.executor = '{profile}'" in text and "params.container_registry = 'registry/lab'" in text
    assert set(re.findall(r"--(\w+)", command)) <= set(re.findall(r"^params\.(\w+) = ", text, re.MULTILINE))


def helped(command: str, folder: Path) -> None:
    """The program starts, and knows each option; where choices are listed, each word that stands for one is there."""
    module = re.findall(r"benchmarks[./]\w+[./]\w+", command)[0].replace("/", ".")
    # A sentence may name the program alone; how to start it stands at its head.
    source = (folder / module.replace(".", "/")).with_suffix(".py").read_text()
    (start,) = set(re.findall(rf"^ *(.*python -m ){module}", source, re.MULTILINE)) or {"python -m "}
    assert start in command or "python" not in command
    text = bash(f"{start}{module} --help", folder)
    assert re.match(rf"usage: .*\b{module.rpartition('.')[2]}\b", text)
    for option in re.findall(r"(--[\w-]+)(?: ([^-\s]\S*))?", command):
        assert option[0] in text, option
        choices = re.search(rf"{option[0]} \{{(.+?)\}}", text)
        if choices and option[1] and not option[1].isupper():
            assert set(option[1].split("|")) <= set(choices[1].split(",")), option


def listed_by_make(command: str, folder: Path) -> None:
    """Make has the target; the scripts that it would start are there."""
    text = bash(f"{command} --dry-run --always-make".replace("FASTA=proteins", "FASTA=proteins.fasta"), folder)
    scripts = re.findall(r"(?:benchmarks|containers|tests|tools)/[\w/]+\.(?:py|sh)", text)
    assert scripts and all((PROJECT / script).exists() for script in scripts), text


def previewed_here(command: str, folder: Path) -> None:
    """In the environment that runs this it gets as far as the first task; tests/e2e/test_plain_clone.py goes on."""
    here = command.replace("--python_env env", f"--python_env {sys.prefix} -preview")
    assert "compute CPU, fp32" in bash(here, folder)


def installs_a_lock(command: str, folder: Path) -> None:
    """Make would install from locks, and each of them is there."""
    locks = re.findall(r"[\w-]+\.lock", bash(f"{command} --dry-run --always-make", folder))
    assert locks and all((PROJECT / lock).exists() for lock in locks)


def installs_what_is_locked(command: str, folder: Path) -> None:
    """pip takes the options, and the locks agree and have a digest for each package: else it would not go on."""
    _, _, locks = command.partition(" install ")
    bash(f"python3 -m pip install --dry-run --no-deps --no-index {locks} || test $? = 1", folder)
    found = set(re.findall(r"^([\w.-]+)==(\S+) \\\n    --hash=", bash(f"cat {locks.replace('-r', '')}", folder), re.M))
    assert {"torch", "multiqc", "pyrodigal-gv"} <= dict(found).keys() and len(found) == len(dict(found))


def helped_export(command: str, folder: Path) -> None:
    """The form is one that its help names; tests/export reads it back."""
    (form,) = re.findall(r"--to (\S+)", command)
    assert form in bash("virnucpro export --help", folder)


def builds(command: str, folder: Path) -> None:
    """A package comes of it; tests/test_wheel.py installs one."""
    assert "Would install virnucpro-embed-" in bash(f"{command} --dry-run --no-deps", folder)


def on_a_cluster(command: str, folder: Path) -> None:
    """The manifest and the profile have what it speaks of; a run in it takes the profile and its parameters."""
    manifest = next(text for language, text in code_blocks(PROJECT / "docs" / "clouds.md") if language == "yaml")
    objects = list(yaml.safe_load_all(manifest))
    (head,) = (each for each in objects if each["kind"] == "Pod")
    mounts = [mount["mountPath"] for mount in head["spec"]["containers"][0]["volumeMounts"]]
    namespaces = {each["metadata"]["namespace"] for each in objects}
    assert set(re.findall(r" -n (\S+)", command)) <= namespaces == {"lab"}
    assert set(re.findall(r" (\S+):/| -it (\S+)", command)) <= {(head["metadata"]["name"], ""), ("", "head")}
    assert all(place in mounts for place in re.findall(r"[: ](/[^/ ]+)", command))
    assert all(label in (PROJECT / "conf" / "k8s.config").read_text() for label in re.findall(r" -l .*=(\S+)", command))
    if "nextflow run" in command:
        resolved(command.rstrip("'"), folder)


def digests_hold(command: str, folder: Path) -> None:
    """The list of a run's results, read as that program reads it: a digest, two blanks, a file that has it."""
    bash("nextflow run . --input proteins.fasta --outdir listed --report false", folder)
    listed = dict(line.split("  ")[::-1] for line in (folder / "listed/digests.xxh128").read_text().splitlines())
    assert {"manifest.parquet", "embeddings/part-00000.parquet"} < listed.keys()
    for name, digest in listed.items():
        assert xxhash.xxh3_128_hexdigest((folder / "listed" / name).read_bytes()) == digest


def told_by_a_program(command: str, folder: Path) -> None:
    """The page repeats what a program of ours says."""
    assert any(command in source.read_text() for source in (folder / "bin").rglob("*.py"))


def parsed_by_bash(command: str, folder: Path) -> None:
    bash(f"bash -n {command.split()[0]}", folder)


LOCKED = Lacks(ENVIRONMENT, installs_what_is_locked)
COMMANDS: dict[str, Run | Convert | Step | PartOf | Lacks] = {
    "make demo": Step(),
    "make test": Step(),
    "make test-slurm": Step(),
    "make test-k8s": Step(),
    "nextflow lint": PartOf("test", "tools/lint_nextflow.sh"),
    "make lint": PartOf("test", ".venv/bin/ruff check ."),
    "make types": PartOf("test", ".venv/bin/mypy"),
    "make test-e2e": PartOf("test", '-m "not faults_long" tests/e2e'),
    "make test-export": PartOf("test", "--dist loadfile tests/export"),
    "make test-modules": PartOf("test", "tools/nf_test.sh"),
    "make .venv/.runtime": PartOf("demo", "uv pip install --quiet --python .venv/bin/python --require-hashes -r"),
    "make .venv/.runtime CUDA=12": Lacks(ENVIRONMENT, installs_a_lock),
    "python3 -m venv env && env/bin/pip install -r requirements.lock -r requirements-tools.lock": LOCKED,
    "nextflow run . -profile demo --python_env env": Lacks("a model hub", previewed_here),
    "pip install .": Lacks(ENVIRONMENT, builds),
    "virnucpro --help": Run(None),
    "virnucpro embed --help": Run(None),
    "virnucpro embed proteins.fasta -o out": Run("out"),
    "virnucpro neighbours --results out --neighbours 10 --outdir out": Run("out/neighbours.parquet"),
    "tr '\\r' '\\n' <old.fasta >new.fasta": Convert({"old.fasta": FASTA.replace(b"\n", b"\r")}, "new.fasta"),
    "awk 1 a.fasta b.fasta >both.fasta": Convert(
        {"a.fasta": FASTA[: FASTA.index(b"\n>b")], "b.fasta": FASTA[FASTA.index(b">b") :]}, "both.fasta"
    ),
    """awk -F '\\t' '{print ">" $1 "\\n" $2}' FILE > proteins.fasta""": Convert({"FILE": TEXTS["tsv"][0]}),
    "iconv -f UTF-16 -t UTF-8 FILE > proteins.fasta": Convert({"FILE": FASTA.decode().encode("utf-16")}),
    "tar -xf FILE": Convert({"FILE": tar(tarfile.GNU_FORMAT)}),
    **{f"{program} FILE": Lacks("that program", told_by_a_program) for program in ("unzip", "7z x", "unrar x")},
    "xxh128sum --check": Lacks("that program", digests_hold),
    "virnucpro export --results results --to npy -o export-npy": Run("export-npy/embedding.npy"),
    "virnucpro export --results results --to fair-esm -o extracted": Run("extracted/export.json"),
    "virnucpro export --results results --to bio_embeddings -o reduced": Lacks("h5py", helped_export),
    "git lfs pull": Lacks("a clone whose files lie elsewhere", told_by_a_program),
    "make": Run(None),
    "make docs": Run("docs/performance.md"),
    "nextflow run main.nf --input 'proteins/*.fasta.gz' --outdir results": Run(VECTORS),
    "nextflow run . --input proteins.fasta": Run(VECTORS),
    "nextflow run . --input proteins.fasta --gpus 0": Run(VECTORS),
    "nextflow run . --input proteins.fasta --outdir results --python_env .venv": Run(VECTORS),
    "nextflow run . --sample_sheet genomes.csv --translate genes --outdir results-genomes": Run("results-genomes"),
    "nextflow run . --input proteins.fasta --long_sequences window --outdir results-window": Run("results-window"),
    "nextflow run . --input 'proteins.fasta,new.fasta' --reuse results --outdir results-new": Run("results-new"),
    "nextflow run . --input new.fasta --neighbours 10 --reference results --outdir results-near": Run("results-near"),
    "nextflow run . --input new.fasta --per_residue --outdir results-residues": Run("results-residues/residues"),
    "nextflow run . --input proteins.fasta -profile slurm,apptainer --gpu_queue gpu": Lacks(DAEMON, previewed),
    "nextflow run . --input proteins.fasta -profile docker": Lacks(DAEMON, previewed),
    "nextflow run . -profile docker,test": Lacks(DAEMON, previewed),
    "CUDA_VISIBLE_DEVICES=2,3 nextflow run . --input proteins.fasta": Lacks(GPU, previewed),
    "nextflow run /path/to/virnucpro-embed -profile slurm --input proteins.fasta --queue cpu --gpu_queue gpu "
    "--account lab42 --python_env /shared/venv -work-dir /scratch/$USER/work": Lacks(GPU, previewed),
    "nextflow run . -c site.config -profile awsbatch --input s3://bucket/proteins.fasta -work-dir s3://bucket/work "
    "--outdir s3://bucket/results": Lacks(CLOUD, resolved),
    "kubectl describe nodes": Lacks(CLUSTER, on_a_cluster),
    "kubectl apply -f lab.yaml": Lacks(CLUSTER, on_a_cluster),
    "kubectl -n lab cp virnucpro-embed head:/workspace/virnucpro-embed": Lacks(CLUSTER, on_a_cluster),
    "kubectl -n lab cp proteins.fasta head:/workspace/proteins.fasta": Lacks(CLUSTER, on_a_cluster),
    "kubectl -n lab cp site.config head:/workspace/site.config": Lacks(CLUSTER, on_a_cluster),
    "kubectl -n lab exec -it head -- bash -c 'cd /workspace && nextflow run virnucpro-embed -c site.config "
    "-profile k8s --input proteins.fasta'": Lacks(CLUSTER, on_a_cluster),
    "kubectl -n lab delete pod -l app.kubernetes.io/name=virnucpro-embed": Lacks(CLUSTER, on_a_cluster),
    "nextflow log": Run(None),
    "nextflow clean -f": Run(None),
    "bin/report.py --results results --outdir results/report": Run("results/report/multiqc_report.html"),
    "bin/verify.py results": Run(None),
    "bin/fetch_model.py --model ./model.pt --outdir .": Run("model.json"),
    "zcat proteins.fasta.gz | bin/split_fasta.py --model-json model.json --outdir split -": Run("split"),
    "bin/embed_shard.py --shard split/shards/shard-00000.fasta --model ./model.pt --model-json model.json "
    "--outdir shard-00000": Run("shard-00000"),
    "bin/merge_embeddings.py --manifest split/manifest.parquet --rejected split/rejected.tsv "
    "--split-summary split/split_summary.json "
    "--model-json model.json --outdir results shard-00000": Run("results"),
    "make images": Lacks(DAEMON, listed_by_make),
    "make images CUDA=12": Lacks(DAEMON, listed_by_make),
    **{f"containers/{words}": Lacks(DAEMON, parsed_by_bash) for words in ("build.sh", "build.sh sif", "slim.sh")},
    "make test-faults": Lacks(TIME, listed_by_make),
    "make test-units": Lacks(TIME, listed_by_make),
    "make lock": Lacks("locks that may change", installs_a_lock),
    "make fuzz": Lacks(TIME, listed_by_make),
    "make soak": Lacks(TIME, listed_by_make),
    "make test-cards": Lacks(TIME, listed_by_make),
    "make tune": Lacks(GPU, listed_by_make),
    "make test-docker": Lacks(DAEMON, listed_by_make),
    "make test-apptainer": Lacks(DAEMON, listed_by_make),
    "make test-modules PROFILE=docker": Lacks(DAEMON, listed_by_make),
    "make bench-gpu FASTA=proteins": Lacks(GPU, listed_by_make),
    "make bench-cpu": Lacks(TIME, listed_by_make),
    "python -m benchmarks.peers.bench_engines FASTA --size SIZE": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_kernels --model SIZE --dtype bf16|fp16|fp8": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_process FASTA CHECKPOINT --size SIZE": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_gpus FASTA --model CHECKPOINT --out benchmarks/results": Lacks(
        GPU, helped
    ),
    "python -m benchmarks.measurements.bench_sampling FASTA": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_monitor FASTA": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_attention --dtype fp16|bf16": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_paths FASTA": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_dedup --records 10000000": Lacks(TIME, helped),
    "python -m benchmarks.measurements.bench_residues": Lacks(TIME, helped),
    "python -m benchmarks.measurements.bench_residues_gpu --checkpoint CHECKPOINT": Lacks(GPU, helped),
    "benchmarks/measurements/bench_eight_bits.py": Lacks(GPU, helped),
    "benchmarks/measurements/bench_containers.py": Lacks(DAEMON, helped),
    "python -m benchmarks.measurements.bench_long_protein CHECKPOINT FASTA": Lacks(GPU, helped),
    **{
        f"benchmarks/measurements/bench_{name}.py": Lacks(TIME, helped)
        for name in ("dedup", "head_node", "long_vectors", "merge", "neighbours", "report", "split")
    },
    "python -m benchmarks.measurements.bench_self_check FASTA CHECKPOINT": Lacks(TIME, helped),
    "python -m benchmarks.peers.bench_run FASTA --size SIZE": Lacks(GPU, helped),
    "benchmarks/peers/bench_notebook.py": Lacks(TIME, helped),
    "python -m benchmarks.peers.bench_parity FASTA --size 650M": Lacks(GPU, helped),
    "python -m benchmarks.peers.bench_parity FASTA --checkpoint CHECKPOINT": Lacks(GPU, helped),
    "python -m benchmarks.measurements.bench_split --records 5000000": Lacks(TIME, helped),
    "python -m benchmarks.measurements.bench_merge --rows 5000000 --dim 320 --shards 50 --duplicates 0.5": Lacks(
        TIME, helped
    ),
    "python -m benchmarks.measurements.bench_head_node --shards 100 1000 10000": Lacks(TIME, helped),
    "python -m benchmarks.pages.scale": Run(None),
}
