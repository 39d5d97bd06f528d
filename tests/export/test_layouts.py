"""Each layout, read back with the package that others read it with, holds the bits of the Parquet files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from finished_results import IDS, KEPT, LIMIT, Embedded, identical, make_results, program

from virnucpro.errors import DataError
from virnucpro.export.results import Records, Results
from virnucpro.export.sequences import Sequences


def export(results: Path, to: str, folder: Path, *options: str) -> Path:
    program("export.py", "--results", results, "--to", to, "--outdir", folder, *options)
    return folder


#: What the records are called where a name has no slash and no two are equal.
NAMES = [
    *("sp|P12345|A_HUMAN", "a_b_1", "a_b", "a_b_4", "record_5", "_", "sp|P12345|B_MOUSE"),
    *("größe_ß", "x" * 300, "a_b_10"),
]


def test_uniprot(results: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder, embedded = export(results, "uniprot", tmp_path / "out", "--per-residue"), Embedded.read(results)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("export.json", "per-protein.h5", "per-residue.h5", "renamed.tsv")
    ]
    with h5py.File(folder / "per-protein.h5") as proteins, h5py.File(folder / "per-residue.h5") as residues:
        assert sorted(proteins) == sorted(residues) == sorted(NAMES)
        for row, name in enumerate(NAMES):
            assert identical(proteins[name][()], embedded.vectors()[row])
            assert identical(residues[name][()], embedded.residues(row))
            assert len(residues[name]) == min(len(KEPT[row][1].replace("-", "")), LIMIT)
        assert json.loads(proteins.attrs["virnucpro"])["weights_sha256"]


def test_uniprot_by_accession(results: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder, embedded = export(results, "uniprot", tmp_path / "out", "--names=accession"), Embedded.read(results)
    with h5py.File(folder / "per-protein.h5") as proteins:
        assert identical(proteins["P12345"][()], embedded.vectors()[0])
        assert identical(proteins["P12345_7"][()], embedded.vectors()[6])


def test_renamed_proteins_are_listed(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    told = program("export.py", "--results", results, "--to", "uniprot", "--outdir", tmp_path / "out")
    with (tmp_path / "out" / "renamed.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    slash, same = "cannot be a name here", "an earlier protein has the same"
    assert rows == [
        ["ordinal", "id", "name", "reason"],
        ["1", "a/b", "a_b_1", slash],
        ["4", "a/b", "a_b_4", slash],
        ["5", "", "record_5", "no id"],
        ["6", ".", "_", slash],
        ["8", "größe/ß", "größe_ß", slash],
        ["10", "a_b", "a_b_10", same],
    ]
    assert told.splitlines() == [
        f"10 proteins of {results} as uniprot in {tmp_path / 'out'}",
        f"6 of them under another name than their own: see {tmp_path / 'out' / 'renamed.tsv'}",
    ]


def test_bio_embeddings(results: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pandas = pytest.importorskip("pandas")
    folder, embedded = export(results, "bio_embeddings", tmp_path / "out", "--per-residue"), Embedded.read(results)
    mapping = pandas.read_csv(folder / "mapping_file.csv", index_col=0, keep_default_na=False)
    assert mapping["original_id"].tolist() == IDS
    assert mapping["sequence_length"].tolist() == embedded.table["length"].to_pylist()
    with (
        h5py.File(folder / "reduced_embeddings_file.h5") as proteins,
        h5py.File(folder / "embeddings_file.h5") as residues,
    ):
        assert len(proteins) == len(residues) == len(IDS)
        for key, original in zip(mapping.index.astype(str), IDS, strict=True):
            assert proteins[key].attrs["original_id"] == residues[key].attrs["original_id"] == original
            assert identical(proteins[key][()], embedded.vectors()[int(key)])
            assert identical(residues[key][()], embedded.residues(int(key)))


def test_one_column_of_several(several: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    said = program("export.py", "--results", several, "--to", "uniprot", "--outdir", tmp_path / "none", code=2)
    assert "choose one with --column" in said and "embedding_bos_layer0" in said
    said = program(
        *("export.py", "--results", several, "--to", "uniprot", "--outdir", tmp_path / "none", "--column", "x"), code=2
    )
    assert "--column x" in said
    assert not list(tmp_path.iterdir())
    column, embedded = "embedding_bos_layer0", Embedded.read(several)
    folder = export(several, "uniprot", tmp_path / "out", "--per-residue", f"--column={column}")
    with h5py.File(folder / "per-protein.h5") as proteins, h5py.File(folder / "per-residue.h5") as residues:
        assert identical(proteins["a_b"][()], embedded.vectors(column)[2])
        assert identical(residues["a_b"][()], embedded.residues(2, "residues_layer0"))


def test_npy(results: Path, several: Path, tmp_path: Path) -> None:
    folder, embedded = export(results, "npy", tmp_path / "one"), Embedded.read(results)
    assert sorted(path.name for path in folder.iterdir()) == ["embedding.npy", "export.json", "ids.txt"]
    matrix = np.load(folder / "embedding.npy", mmap_mode="r")
    assert identical(np.array(matrix), embedded.vectors())
    assert (folder / "ids.txt").read_text() == "".join(f"{each}\n" for each in IDS)
    folder, embedded = export(several, "npy", tmp_path / "several"), Embedded.read(several)
    files = sorted(folder.glob("*.npy"))
    assert len(files) == 4
    for file in files:
        assert identical(np.load(file), embedded.vectors(file.stem))


def test_anndata(results: Path, several: Path, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    path = export(results, "h5ad", tmp_path / "one") / "embeddings.h5ad"
    embedded = Embedded.read(results)
    data = anndata.read_h5ad(path)
    assert identical(data.X, embedded.vectors())
    assert data.obs_names.tolist() == NAMES and data.obs_names.is_unique
    assert data.obs["id"].tolist() == IDS
    for name in ("ordinal", "length", "truncated", "sequence_key"):
        assert data.obs[name].tolist() == embedded.table[name].to_pylist()
    assert json.loads(data.uns["virnucpro"])["max_length"] == LIMIT
    assert data.var_names.tolist() == [str(number) for number in range(data.n_vars)]
    assert anndata.read_h5ad(path, backed="r")[3].X.tobytes() == embedded.vectors()[3].tobytes()
    path = export(several, "h5ad", tmp_path / "several", "--column=embedding_bos_layer6") / "embeddings.h5ad"
    data, embedded = anndata.read_h5ad(path), Embedded.read(several)
    assert identical(data.X, embedded.vectors("embedding_bos_layer6").astype(np.float32))
    assert sorted(data.obsm) == ["embedding_bos_layer0", "embedding_mean_layer0", "embedding_mean_layer6"]
    for column, matrix in data.obsm.items():
        assert identical(matrix, embedded.vectors(column).astype(np.float32))


def test_anndata_says_where_a_protein_lies_and_of_which_sample(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    (tmp_path / "in.fasta").write_text(">c1\n" + "ATGGCCAAAGGT" * 30 + "\n")
    (tmp_path / "sheet.csv").write_text(f"sample,file\ndeep sea,{tmp_path / 'in.fasta'}\n")
    told = ("--translate=six_frame", "--chunk=300", "--sample-sheet", tmp_path / "sheet.csv")
    results = make_results(tmp_path, inputs=told)
    data = anndata.read_h5ad(export(results, "h5ad", tmp_path / "one") / "embeddings.h5ad")
    table = Embedded.read(results).table
    assert set(data.obs["sample"]) == {"deep sea"} and set(data.obs["contig"]) == {"c1"}
    for name in ("sample", "contig", "strand", "frame", "start", "end"):
        assert data.obs[name].tolist() == table[name].to_pylist()


def read_as_model(sequence: str) -> str:
    return sequence.replace("-", "").replace("J", "X")[:LIMIT]


def test_scikit_bio(results: Path, tmp_path: Path) -> None:
    skbio = pytest.importorskip("skbio")
    folder, embedded = export(results, "scikit-bio", tmp_path / "out", "--per-residue"), Embedded.read(results)
    proteins = list(skbio.io.read(str(folder / "vectors.h5"), "embed", constructor=skbio.embedding.ProteinVector))
    assert [str(each) for each in proteins] == [read_as_model(sequence) for _, sequence in KEPT]
    assert identical(np.concatenate([each.embedding for each in proteins]), embedded.vectors())
    each_residue = list(
        skbio.io.read(str(folder / "residues.h5"), "embed", constructor=skbio.embedding.ProteinEmbedding)
    )
    assert [str(each) for each in each_residue] == [read_as_model(sequence) for _, sequence in KEPT]
    for row, each in enumerate(each_residue):
        assert identical(each.embedding, embedded.residues(row).astype(np.float32))
    assert skbio.io.sniff(str(folder / "vectors.h5"))[0] == "embed"
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "vectors.h5") as file:
        assert [each.decode() for each in file["record_id"]] == NAMES


def test_the_sequences_of_a_file_that_was_given_twice_in_a_row_are_read_twice(tmp_path: Path) -> None:
    """What no layout but scikit-bio's asks for, without the packages that it needs."""
    fasta = tmp_path / "input.fasta"
    results = Results(make_results(tmp_path, inputs=[fasta, fasta]))
    sequences = Sequences(results, ())
    found = [
        sequence
        for facts, vectors in results.vectors(["embedding"])
        for sequence in sequences.take(Records(0, facts, vectors, [], []))
    ]
    assert found == 2 * [read_as_model(sequence) for _, sequence in KEPT]
    fasta.write_text("")
    facts, vectors = next(results.vectors(["embedding"]))
    with pytest.raises(DataError, match="its sequence is not that of the run"):
        Sequences(results, ()).take(Records(0, facts, vectors, [], []))


def test_scikit_bio_wants_the_sequences_of_the_run(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    other = tmp_path / "other.fasta"
    other.write_text("".join(f">{header}\n{sequence}A\n" for header, sequence in KEPT))
    common = ("export.py", "--results", results, "--to", "scikit-bio", "--outdir", tmp_path / "out", "--sequences")
    said = program(*common, other, code=65)
    assert "record 'sp|P12345|A_HUMAN': its sequence is not that of the run; name the run's input" in said
    said = program(*common, tmp_path / "absent.fasta", code=66)
    assert "absent.fasta: no such file; name the run's input with --sequences" in said
    assert [path.name for path in tmp_path.iterdir()] == ["other.fasta"]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_faiss(results: Path, tmp_path: Path, metric: str) -> None:
    faiss = pytest.importorskip("faiss")
    folder = export(results, "faiss", tmp_path / "out", f"--metric={metric}")
    vectors = Embedded.read(results).vectors()
    index = faiss.read_index(str(folder / "embedding.faiss"))
    assert (index.ntotal, index.d) == vectors.shape
    kept = index.reconstruct_n(0, index.ntotal)
    if metric == "l2":
        assert identical(kept, vectors)
        expected = ((vectors[:, None] - vectors[None]) ** 2).sum(-1)
    else:
        np.testing.assert_allclose(kept, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rtol=1e-6)
        expected = -(kept @ kept.T)
    measured, found = index.search(kept, index.ntotal)
    np.testing.assert_allclose(np.take_along_axis(expected, found, 1), np.sort(expected), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(measured if metric == "l2" else -measured, np.sort(expected), rtol=1e-4, atol=1e-4)
    assert (folder / "ids.txt").read_text().splitlines() == IDS


def test_residues_are_refused_where_there_are_none_or_no_place(results: Path, tmp_path: Path) -> None:
    said = program(
        *("export.py", "--results", results, "--to", "npy", "--outdir", tmp_path / "out", "--per-residue"), code=2
    )
    assert "npy holds one vector a protein; export to uniprot, bio_embeddings, fair-esm, scikit-bio" in said
    said = program("export.py", "--results", tmp_path, "--to", "npy", "--outdir", tmp_path / "out", code=66)
    assert "digests.xxh128: not there; give the output folder of a finished run" in said
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    said = program("export.py", "--results", results, "--to", "npy", "--outdir", tmp_path / "out", code=2)
    assert "exists already and is not empty" in said
