"""The whole pipeline against a plain script on one device: from FASTA to vectors on disk, in turns, step by step.

    python -m benchmarks.peers.bench_run FASTA --size 650M

Both load the same folder of random weights in Hugging Face's layout. The script is ``plain_script.py`` on a GPU; on a
CPU it is fair-esm's extract, for which FASTA and the demo's model stand in (``--checkpoint``). ``virnucpro embed``,
which needs no Nextflow, runs beside both. On a GPU ours run with kernels compiled before (``warm``), and the pipeline,
at the sizes of ``--cold``, with an empty cache of kernels too, as on a fresh machine. ``nextflow`` has to be on PATH.
Writes ``benchmarks/results/run-SIZE.csv``: a row for each step of each run with its begin and end in seconds after the
command; the step ``whole`` is all of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from benchmarks.environment import RESULTS, ROOT, write_csv
from benchmarks.inputs import SHAPES

from virnucpro.fasta import read_records

WHOLE = "whole"
#: So that times come as numbers; no container, no report, nothing that a user's site adds.
TRACE = "trace { raw = true; fields = 'name,status,submit,start,complete' }\nprocess.cache = false\n"


@dataclass(frozen=True)
class Step:
    """A stretch of a run, in seconds after its command was given."""

    name: str
    begin: float
    end: float


def write_proteins(fasta: Path, count: int, out: Path) -> None:
    """Write ``count`` distinct proteins: the file's, evenly sampled or again with their residues rotated."""
    records = list(read_records(fasta))
    step = max(len(records) / count, 1.0)
    sampled = [records[int(index * step)] for index in range(min(count, len(records)))]
    with out.open("w") as handle:
        for index in range(count):
            copy, record = index // len(sampled), sampled[index % len(sampled)]
            turned = copy % max(len(record.sequence), 1)
            handle.write(f">{index}\n{record.sequence[turned:]}{record.sequence[:turned]}\n")


def write_model(size: str, folder: Path) -> None:
    """Random weights in the shape of an official model, as ``save_pretrained`` writes them."""
    import torch
    from transformers import EsmConfig, EsmForMaskedLM

    layers, embed_dim, heads = SHAPES[size]
    settings = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=embed_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * embed_dim,
        position_embedding_type="rotary",
        token_dropout=True,
        layer_norm_eps=1e-5,
        emb_layer_norm_before=False,
        max_position_embeddings=1026,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = EsmForMaskedLM(settings)
    model.cpu().save_pretrained(folder)


class Contest:
    """Runs of both programs on the same proteins with the same weights."""

    def __init__(self, model: Path, scratch: Path, *, on_gpu: bool, settings: Path | None) -> None:
        self._model = model
        self._scratch = scratch
        self._on_gpu = on_gpu
        self._config = scratch / "trace.config"
        self._config.write_text(TRACE + (settings.read_text() if settings else ""))
        self._kernels = scratch / "kernels"

    def pipeline(self, proteins: Path, *, cold: bool) -> list[Step]:
        """``nextflow run`` in a folder of its own; ``cold`` with no kernels compiled.

        Raises:
            RuntimeError: it failed; with the last that it said.
        """
        if cold:
            shutil.rmtree(self._kernels, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        command = ["nextflow", "-c", str(self._config), "run", str(ROOT / "main.nf"), "-ansi-log", "false"]
        command += ["--input", str(proteins), "--model", str(self._model), "--report", "false"]
        command += ["--gpus", "1", "--triton_cache", str(self._kernels)] if self._on_gpu else ["--gpus", "0"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"NXF_OFFLINE": "true", **os.environ, "PATH": path}
        begun, ended = run_timed(command, folder, environment)
        steps = [Step(WHOLE, begun, ended), *steps_of(folder / "results", begun, ended)]
        shutil.rmtree(folder)
        return moved(steps, begun)

    def command(self, proteins: Path) -> list[Step]:
        """``virnucpro embed``, with kernels compiled before; errors as for ``pipeline``."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        given = [proteins, "--model", self._model, "--outdir", "results", "--no-report", "--gpus", int(self._on_gpu)]
        path = os.pathsep.join([str(ROOT / "bin"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(self._kernels)}
        begun, ended = run_timed([sys.executable, "-m", "virnucpro", "embed", *map(str, given)], folder, environment)
        first, last = computing(folder / "results")
        shutil.rmtree(folder)
        steps = [Step(WHOLE, begun, ended), Step("start-up", begun, first), Step("compute", first, last)]
        return moved([*steps, Step("end", last, ended)], begun)

    def peer(self, proteins: Path) -> list[Step]:
        """The plain script, or fair-esm's extract on a CPU.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        out = Path(tempfile.mkdtemp(dir=self._scratch))
        script = "plain_script.py" if self._on_gpu else "fair_esm_extract.py"
        extract = [self._model, proteins, out, "--threads", os.cpu_count() or 1]
        given = [proteins, self._model, out / "vectors.npy"] if self._on_gpu else extract
        begun = time.time()
        command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, given)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
        ended = time.time()
        shutil.rmtree(out)
        steps = [Step(WHOLE, begun, ended)]
        if self._on_gpu:
            marks = json.loads(done.stderr.splitlines()[-1])
            names = {"imported": "import", "loaded": "weights", "computed": "compute", "end": "write"}
            begin = begun
            for mark, name in names.items():
                steps.append(Step(name, begin, marks[mark]))
                begin = marks[mark]
            steps.append(Step("exit", begin, ended))
        return moved(steps, begun)


def run_timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Begin and end of a command; RuntimeError with the last that it said where it failed."""
    begun = time.time()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-4000:])
    return begun, ended


def computing(results: Path) -> tuple[float, float]:
    """Begin of the first batch and end of the last, in unix seconds."""
    batches = pq.read_table(results / "metrics" / "batches.parquet", columns=["start", "end"])
    return pc.min(batches["start"]).as_py(), pc.max(batches["end"]).as_py()


def steps_of(results: Path, begun: float, ended: float) -> Iterator[Step]:
    """The steps of a finished run: its processes, EMBED_SHARD's own, and what Nextflow needs before and after."""
    with (results / "pipeline_info" / "trace.txt").open() as handle:
        tasks = sorted(csv.DictReader(handle, delimiter="\t"), key=lambda task: float(task["start"]))
    spans = [(task["name"].split(" ")[0], float(task["start"]) / 1e3, float(task["complete"]) / 1e3) for task in tasks]
    yield Step("Nextflow starts", begun, min(begin for _, begin, _ in spans))
    first, last = computing(results)
    for name, begin, end in spans:
        if name == "EMBED_SHARD":
            yield Step("EMBED_SHARD: start-up", begin, first)
            yield Step("EMBED_SHARD: compute", first, last)
            yield Step("EMBED_SHARD: end", last, end)
        else:
            yield Step(name, begin, end)
    yield Step("Nextflow ends", max(end for _, _, end in spans), ended)


def moved(steps: Sequence[Step], begun: float) -> list[Step]:
    return [Step(each.name, each.begin - begun, each.end - begun) for each in steps]


def measure(options: argparse.Namespace, contest: Contest, scratch: Path) -> Iterator[dict[str, object]]:
    """Rows of all runs: of each size the programs in turns, then from an empty cache of kernels."""
    for place, (count, repeats) in enumerate(zip(options.proteins, options.repeats, strict=True)):
        proteins = scratch / f"{count}.fasta"
        write_proteins(options.fasta, count, proteins)
        if options.on_gpu and place == 0:
            # Compiles the kernels, which are those of any number of proteins; what either reads is then at hand.
            contest.pipeline(proteins, cold=False)
            contest.peer(proteins)
        for repeat in range(repeats):
            runs = {("plain script", "-"): contest.peer(proteins)}
            runs["virnucpro-embed", "warm"] = contest.pipeline(proteins, cold=False)
            runs["virnucpro embed", "warm"] = contest.command(proteins)
            if options.on_gpu and count in options.cold:
                runs["virnucpro-embed", "cold"] = contest.pipeline(proteins, cold=True)
            for (program, kernels), steps in runs.items():
                print(f"{count:,} proteins, {program}, {kernels}: {steps[0].end:.1f} s", flush=True)
                for step in steps:
                    print(f"    {step.name:24} {step.begin:7.2f} {step.end - step.begin:7.2f}", flush=True)
                    yield {
                        "proteins": count,
                        "program": program,
                        "kernels": kernels,
                        "repeat": repeat,
                        "step": step.name,
                        "begin": round(step.begin, 3),
                        "end": round(step.end, 3),
                    }


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="650M", help="of random weights for both")
    parser.add_argument("--checkpoint", type=Path, help="real weights instead; on a CPU in a form that fair-esm reads")
    parser.add_argument("--proteins", type=int, nargs="+", default=[450, 4450, 44500])
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 3, 1], help="of each number of proteins")
    parser.add_argument("--cold", type=int, nargs="*", default=[4450], help="numbers of proteins to run cold as well")
    parser.add_argument("--config", type=Path, help="more settings for Nextflow")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all and write the file."""
    options = parse_options(argv)
    from benchmarks.environment import conditions

    common = conditions()
    options.on_gpu = bool(common["cuda"])
    name = options.checkpoint.name if options.checkpoint else options.size
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = options.checkpoint.resolve() if options.checkpoint else scratch / f"esm2_{options.size}"
        if options.checkpoint is None:
            write_model(options.size, model)
        contest = Contest(model, scratch, on_gpu=options.on_gpu, settings=options.config)
        rows: list[dict[str, object]] = []
        for row in measure(options, contest, scratch):
            # After each, so that a run cut short leaves what it has.
            rows.append(row | {"model": name, "data": options.fasta.name} | common)
            write_csv(options.out or RESULTS / f"run-{options.size if options.on_gpu else 'cpu'}.csv", rows)


if __name__ == "__main__":
    main()
