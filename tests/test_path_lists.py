"""Lists of paths in files: what the task scripts take where a command line would be too long."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from descriptions import describe

from virnucpro.cli.split import main as split_main
from virnucpro.errors import DataError, InputMissingError
from virnucpro.path_lists import PathList, named_paths, read_path_list, shard_folders

MODEL_JSON = describe(layers=6, embed_dim=320).to_dict()


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_list_holds_paths_and_names_in_their_order(tmp_path: Path) -> None:
    entries = [{"path": "input2", "name": "b\t'\"\n$é"}, {"path": "input1", "name": "a"}]
    expected = PathList((Path("input2"), Path("input1")), ("b\t'\"\n$é", "a"))
    assert read_path_list(write(tmp_path / "list", entries)) == expected
    both = named_paths([Path("here.fa")], tmp_path / "list")
    assert both == PathList((Path("here.fa"), *expected.paths), ("here.fa", *expected.names))
    assert named_paths([Path("-")], None) == PathList((Path("-"),), ())


@pytest.mark.parametrize("value", [{"path": "a"}, [{"path": "a"}], ["a"], [{"path": 1, "name": "a"}], 3, None])
def test_another_file_is_refused_by_its_name(value: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list: not a JSON list of .*; write it anew"):
        read_path_list(write(tmp_path / "list", value))
    (tmp_path / "list").write_bytes(b"\xff")
    with pytest.raises(DataError):
        read_path_list(tmp_path / "list")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="list: no such list"):
        read_path_list(tmp_path / "list")


def test_a_folders_shards_are_all_its_folders_of_that_name(tmp_path: Path) -> None:
    for name in ("shard-00010", "shard-00002", "shard-100000", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "shard-00001.fasta").touch()
    assert [path.name for path in shard_folders(tmp_path)] == ["shard-00002", "shard-00010", "shard-100000"]
    assert shard_folders(None) == ()


def test_the_split_calls_files_and_results_as_the_list_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, sequence in enumerate(("MKVLA", "MKTAYI"), 1):
        Path(f"input{number}").write_text(f">p{number}\n{sequence}\n")
    write(Path("inputs"), [{"path": "input2", "name": "/data/b.fa"}, {"path": "input1", "name": "/data/a.fa"}])
    write(Path("reuse"), [{"path": "reuse1", "name": "/data/earlier"}])
    write(Path("model.json"), MODEL_JSON)
    options = ["--model-json", "model.json", "--outdir", "out", "--inputs-from", "inputs"]
    assert split_main(options) == 0
    ledger = pq.read_table("out/manifest.parquet").to_pylist()
    assert [(row["id"], row["file"]) for row in ledger] == [("p2", "/data/b.fa"), ("p1", "/data/a.fa")]
    part = Path("reuse1/embeddings/part-00000.parquet")
    part.parent.mkdir(parents=True)
    pq.write_table(pq.read_table("out/manifest.parquet"), part)
    assert split_main([*options, "--reuse-from", "reuse"]) == 0
    assert "warning: /data/earlier: not reused" in capfd.readouterr().err
    (entry,) = json.loads(Path("out/split_summary.json").read_text())["reuse"]
    assert (entry["results"], entry["used"]) == ("/data/earlier", False)


def test_a_split_of_many_empty_files_names_some(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    entries = [{"path": str(tmp_path / "empty"), "name": f"/data/{number}.fa"} for number in range(2000)]
    options = ["--model-json", str(write(tmp_path / "model.json", MODEL_JSON)), "--outdir", str(tmp_path / "out")]
    assert split_main([*options, "--inputs-from", str(write(tmp_path / "list", entries))]) == 65
    last = capfd.readouterr().err.splitlines()[-1]
    assert "/data/0.fa, /data/1.fa, /data/2.fa and 1997 more: no sequence in the input" in last


def test_no_input_at_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = write(tmp_path / "list", [])
    assert split_main(["--model-json", "model.json", "--inputs-from", str(empty)]) == 2
    assert "no input file given" in capfd.readouterr().err
