"""``embed`` of contigs: the rows, places and bits of ``virnucpro embed`` with the same parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from Bio import SeqIO
from e2e.launch import MODEL, PROJECT
from real_genomes import FOLDER, entries

from virnucpro import Embedder, embed
from virnucpro.errors import DataError, FastaFormatError, InputMissingError, UsageError
from virnucpro.output.schema import decode_metadata

GENOME = FOLDER / "NC_001422.gb.gz"
CASES: dict[str, dict[str, Any]] = {
    "genes": {"translate": "genes"},
    "six_frame": {"translate": "six_frame", "chunk": 300, "genetic_code": 11, "min_contig": 5},
}
PLACE = ["contig", "strand", "frame", "start", "end"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One genome as GenBank and as FASTA, beside contigs that have no proteins."""
    folder = tmp_path_factory.mktemp("contigs")
    (genome,) = (entry for entry in entries() if entry.id == "NC_001422.1")
    SeqIO.write(genome, folder / "genome.fasta", "fasta")
    odd = ";of a lake\n>short one\nACGT\n>odd\nACGT7ACGT\n>none\n>stops\n" + "TTAATTAATTAA" * 30 + "\n"
    (folder / "odd.fasta").write_text(odd + (folder / "genome.fasta").read_text())
    return {"genbank": GENOME, "fasta": folder / "genome.fasta", "odd": folder / "odd.fasta"}


def command(folder: Path, file: Path, options: dict[str, Any]) -> Path:
    """Results of the command without Nextflow."""
    told = [f"--{name}={value}" for name, value in options.items()]
    line = [sys.executable, "-m", "virnucpro", "embed", file, "-o", "out", "--model", MODEL, "--gpus=0", "--no-report"]
    environment = {"PYTHONPATH": str(PROJECT / "bin"), "PATH": ""}
    done = subprocess.run([*map(str, line), *told], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def bits(table: pa.Table) -> bytes:
    return bytes(table["embedding"].combine_chunks().flatten().to_numpy().tobytes())


@pytest.mark.parametrize("mode", CASES)
def test_the_rows_are_those_of_the_command(mode: str, files: dict[str, Path], tmp_path: Path) -> None:
    results = command(tmp_path, files["odd"], CASES[mode])
    expected = pq.read_table(results / "embeddings")
    with Embedder(MODEL, device="cpu", **CASES[mode]) as embedder, pytest.warns(UserWarning, match="of .* rejected"):
        found = embedder.embed(files["odd"])
    assert found.num_rows > 7
    facts = found.column_names[: found.column_names.index("embedding")]
    assert facts == expected.column_names[: len(facts)] and facts[-5:] == PLACE
    assert found.select(facts).to_pylist() == expected.select(facts).to_pylist()
    assert found.schema.field("contig") == expected.schema.field("contig")
    assert bits(found) == bits(expected)
    assert decode_metadata(found.schema, "") == decode_metadata(expected.schema, "")

    rows = [line.split("\t")[1:] for line in (results / "rejected.tsv").read_text().splitlines()[1:]]
    told = [[str(each.line), str(each.ordinal), each.id, each.reason] for each in embedder.rejected]
    assert told == rows and len(rows) > 2
    assert (embedder.stopped_frames > 0) == (mode == "six_frame")
    said = pq.read_table(results / "manifest.parquet")["status"].to_pylist()
    assert len(said) == found.num_rows + len(rows)


@pytest.mark.parametrize("mode", CASES)
def test_a_genome_is_the_same_in_any_form(mode: str, files: dict[str, Path]) -> None:
    (record,) = SeqIO.parse(files["fasta"], "fasta")
    texts: list[Any] = [files["genbank"], files["fasta"], {record.id: str(record.seq).lower()}, [str(record.seq)]]
    with Embedder(MODEL, device="cpu", layers=[0], **CASES[mode]) as embedder:
        *named, listed = (embedder.embed(each) for each in texts)
    assert all(table.equals(named[0], check_metadata=True) for table in named)
    assert bits(listed) == bits(named[0]) and named[0]["contig"].to_pylist()[0] == "NC_001422.1"
    assert [f"NC_001422.1{each[1:]}" for each in listed["id"].to_pylist()] == named[0]["id"].to_pylist()


def test_the_genes_of_phi_x(files: dict[str, Path]) -> None:
    table = embed(files["fasta"], model=MODEL, device="cpu", layers=[0], translate="genes")
    first = table.select(["id", "length", *PLACE]).slice(0, 1).to_pylist()[0]
    sequence = next(SeqIO.parse(files["fasta"], "fasta")).seq[first["start"] - 1 : first["end"]]
    assert first["strand"] == "+" and first["frame"] == (first["start"] - 1) % 3 + 1
    assert first["length"] == len(sequence.translate(11).rstrip("*"))


@pytest.mark.parametrize(
    ("contigs", "options", "error", "message"),
    [
        ({"a": "MKLLFEQPILMKLLFEQPIL"}, {"translate": "genes"}, DataError, "protein sequences .*; leave translate out"),
        (PROJECT / "assets" / "proteins.fasta", {"translate": "six_frame"}, FastaFormatError, "; leave --translate"),
        (Path("nowhere.fasta"), {"translate": "genes"}, InputMissingError, "nowhere.fasta: no such file"),
        (
            {"a": "ACG"},
            {"translate": "six_frame", "min_contig": 9},
            DataError,
            "record 'a': contig of 3 nucleotides, b",
        ),
        ([], {"translate": "genes"}, DataError, "no sequence in the input; give DNA sequences"),
        ([b"ACGT"], {"translate": "genes"}, UsageError, "id and sequence are str and bytes"),
        (["ACGT" * 9], {}, DataError, "nucleotide sequences .* give translate='genes' or translate='six_frame', or"),
    ],
)
def test_what_is_refused(contigs: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        embed(contigs, model=MODEL, device="cpu", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"translate": "frames"}, "--translate is 'frames', but must be one of genes, six_frame"),
        ({"translate": "genes", "chunk": 300}, "--chunk and --genetic_code are of --translate six_frame"),
        ({"translate": "six_frame", "genetic_code": 7}, "--genetic_code is 7, but must be one of NCBI's"),
        ({"min_contig": 300}, "--min_contig is of --translate genes and six_frame"),
        ({"translate": "genes", "alphabet": "protein"}, "--alphabet protein says that the input is no DNA"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Embedder(MODEL, **options)


def test_a_fault_in_a_file_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text("# comment\n>a\n" + "ACGT\n" * 70_000 + ">b\nACG>c\nACGT\n")
    with pytest.raises(FastaFormatError, match=r"in\.fasta, line 70004: '>' inside a sequence line"):
        embed(tmp_path / "in.fasta", model=MODEL, device="cpu", translate="six_frame")


def test_without_pyrodigal_the_extra_is_asked_for() -> None:
    code = "import sys; sys.modules['pyrodigal_gv'] = None\nimport virnucpro, virnucpro.errors\ntry:\n"
    code += f"    virnucpro.embed(['ACGT' * 30], model={str(MODEL)!r}, device='cpu', translate='genes')\n"
    code += "except virnucpro.errors.UsageError as error:\n    print(error)"
    environment = {"PYTHONPATH": str(PROJECT / "bin"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("--translate genes needs pyrodigal-gv, which is not there for ") and "[contigs]" in line
