"""Files and folders by the names that users give them: taken as they are, or refused before a task starts."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, copy_project, launch, launch_environment, nextflow_command, once, refusals
from merge.merge_runs import Run, key

TAKEN = [
    *("plain", "two words", " blank before", "blank after ", "comma,inside", "co:lon", "a=b", "plus+", "at@", "100%"),
    *("it's", 'double"quote', "back`tick", "back\\slash", "\\n", "[brackets]", "{brace", "brace}", "{one}", "(round)"),
    *("star*", "**", "quest?ion", "excla!mation", "semi;colon", "amper&sand", "pi|pe", "<less>", "#hash", "~tilde"),
    *("^", "%20", "-dash", "--input", "..dots", ".hidden", "ünïcödé", "日本語", "🧬"),
    *("file:name", "s3:bucket", "C:\\dos"),
]
REFUSED = {
    "tab\tinside": ("tab\\x09inside", "a line break, tab or other control character"),
    "line\nbreak": ("line\\x0abreak", "a line break, tab or other control character"),
    "x\r$(touch ran)\rx": ("x\\x0d$(touch ran)\\x0dx", "a line break, tab or other control character"),
    "escape\x1b[31m": ("escape\\x1b[31m", "a line break, tab or other control character"),
    "dollar$HOME": ("dollar$HOME", "a dollar sign"),
    "{a,b}": ("{a,b}", "braces that a shell expands"),
    "{1..3}": ("{1..3}", "braces that a shell expands"),
}
Found = tuple[Path, dict[tuple[str, ...], tuple[int, str] | None]]
#: Parameters of a short run: no report, no wait for the model.
SHORT = ("--model", MODEL, "--report", "false")


def write_proteins(paths: list[Path]) -> None:
    """One protein of its own in each file, named after the file's place."""
    generator = random.Random(0)
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        sequence = "".join(generator.choices("ACDEFGHIKLMNPQRSTVWY", k=12))
        path.write_text(f">p{number}\n{sequence}\n")


def ledger(results: Path) -> list[tuple[str, str]]:
    rows = pq.read_table(results / "manifest.parquet", columns=["id", "file"]).to_pylist()
    return [(row["id"], row["file"]) for row in rows]


def test_names_of_files_and_folders_are_in_the_ledger_as_they_are(tmp_path: Path) -> None:
    """Relative ones beside absolute ones, a list in a file of parameters."""
    files = [tmp_path / str(number) / f"{name}.fa" for number, name in enumerate(TAKEN)]
    files += [tmp_path / f"folder{number}" / name / "in.fa" for number, name in enumerate(TAKEN)]
    files += [tmp_path / f"bare{number}" / name for number, name in enumerate(TAKEN)]
    write_proteins(files)
    given = [str(path.relative_to(tmp_path)) if number % 2 else str(path) for number, path in enumerate(files)]
    (tmp_path / "parameters.json").write_text(json.dumps({"input": given}))
    run = launch(tmp_path, "-params-file", "parameters.json", *SHORT)
    assert run.code == 0, run.output
    assert ledger(run.results) == [(f"p{number}", str(path)) for number, path in enumerate(files)]
    assert pq.read_table(run.results / "embeddings").num_rows == len(files)


@pytest.mark.one_engine
def test_commas_separate_names_and_globs(tmp_path: Path) -> None:
    """Blanks around a name are no part of it, unless it exists with them; what exists as it stands is no glob."""
    files = ["a.fa", "b,c.fa", "x[1].fa", "[dir]/d.fa", "[dir]/e.faa", "s1.fa", "s2.fa", "folder/?.fa", " h.fa"]
    write_proteins([tmp_path / name for name in (*files, "c.fa", "[dir]/no.txt", "h.fa", "s12.fa")])
    given = "a.fa, b,c.fa,x[1].fa, [dir]/*.{fa,faa} ,s?.fa,, folder/?.fa, h.fa,"
    run = launch(tmp_path, "--input", given, *SHORT)
    assert run.code == 0, run.output
    assert [file for _, file in ledger(run.results)] == [str(tmp_path / name) for name in files]


#: Name -> a file that a shell would take for it as well.
NEIGHBOURS = {
    "x[1].fa": "x1.fa",
    "x*.fa": "xyz.fa",
    "?.fa": "a.fa",
    "[!a]/in.fa": "b/in.fa",
    "[[:digit:]]/in.fa": "1/in.fa",
}
PLACES = ("file", "folder", "glob")
#: Parameter and value, and what is said of it.
NO_INPUT = {
    ("input", "in.fa,,nothing"): "--input nothing: no such file; check the path",
    ("input", "*.none"): "--input *.none: no such file; check the path",
    ("input", "/*.none"): "--input /*.none: no such file; check the path",
    ("reuse", "in.fa"): "--reuse in.fa: a file, not a folder",
    ("reuse", "none"): "--reuse none: no such folder; check the path",
    ("input", "in.fa,pipe"): "--input {folder}/pipe: a pipe or device, which a task that is tried again",
    ("input", "with_pipe"): "--input {folder}/with_pipe/pipe: a pipe or device, which a task that is tried again",
    ("input", "empty"): "--input {folder}/empty: a folder without files; name files, or a glob in quotes",
}


def write_refused(folder: Path, name: str, place: str) -> str:
    """A file whose name, or whose folder's name, ends the run; and how it is given."""
    path = folder / name / "in.fa" if place == "folder" else folder / f"{name}.fa"
    write_proteins([path])
    return str(folder / "*.fa") if place == "glob" else str(path)


def write_no_input(folder: Path) -> None:
    write_proteins([folder / "in.fa", folder / "folder" / "in.fa", folder / "mo$del"])
    os.mkfifo(folder / "pipe")
    write_proteins([folder / "with_pipe" / "in.fa"])
    os.mkfifo(folder / "with_pipe" / "pipe")
    (folder / "empty" / "nested").mkdir(parents=True)
    (folder / "empty" / ".hidden").touch()


def shell_takes(folder: Path, name: str) -> str:
    taken, other = (str(folder / each).removesuffix("/in.fa") for each in (name, NEIGHBOURS[name]))
    return f"--input {taken}: the shell that links it would take {other} for it as well"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The folder of all names that end the run, and what each is refused with, in one start."""
    folder = tmp_path_factory.mktemp("names")
    write_no_input(folder)
    given = {case: case for case in NO_INPUT}
    for number, (name, neighbour) in enumerate(NEIGHBOURS.items()):
        write_proteins([folder / f"{number}" / name, folder / f"{number}" / neighbour])
        given[("neighbour", name)] = ("input", f"{number}/{name}")
    for number, name in enumerate(REFUSED):
        for place in PLACES:
            given[(name, place)] = ("input", write_refused(folder / f"{place}{number}", name, place))
    call = "existingPaths(each[0], each[1], [type: each[0] == 'reuse' ? 'dir' : 'file'])"
    told = refusals(folder, "paths", call, list(given.values()))
    return folder, dict(zip(given, told, strict=True))


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_name_that_stands_for_a_neighbour_is_refused(name: str, found: Found) -> None:
    """The shell that links a file would read wildcards in its name, and Nextflow leaves them unquoted."""
    folder, told = found
    code, message = told[("neighbour", name)] or (0, "")
    assert (code, message.partition("; ")[0]) == (66, shell_takes(folder / str(list(NEIGHBOURS).index(name)), name))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", REFUSED)
def test_names_that_nextflow_cannot_link_are_refused(name: str, place: str, found: Found) -> None:
    code, message = found[1][(name, place)] or (0, "")
    shown, reason = REFUSED[name]
    assert code == 66
    assert shown in message
    assert f"Nextflow cannot stage a path with {reason}; rename it" in message
    assert "\x1b" not in message


@pytest.mark.one_engine
def test_a_name_that_nextflow_cannot_link_ends_the_run_before_a_task(tmp_path: Path) -> None:
    name = "x\r$(touch ran)\rx"
    run = launch(tmp_path, "--input", write_refused(tmp_path, name, "folder"), *SHORT)
    assert run.code == 66, run.output
    shown, reason = REFUSED[name]
    assert shown in run.last_lines
    assert f"Nextflow cannot stage a path with {reason}; rename it" in run.last_lines
    assert list(tmp_path.glob("work/*/*/.command.run")) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "given"), NO_INPUT)
def test_what_is_no_input(name: str, given: str, found: Found) -> None:
    folder, told = found
    code, message = told[(name, given)] or (0, "")
    assert code == 66
    assert message.startswith(NO_INPUT[(name, given)].format(folder=folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        once(["--input", "in.fa", "--model", "pipe"], "--model {folder}/pipe: a pipe or device, which a task"),
        (["--input", "in.fa", "-work-dir", "wo$rk"], "--work-dir {folder}/wo$rk: Nextflow cannot stage a path with a"),
    ],
)
def test_what_is_no_input_ends_the_run(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_no_input(tmp_path)
    run = launch(tmp_path, *SHORT, *arguments)
    assert run.code == 66, run.output
    assert message.format(folder=tmp_path) in run.last_lines


@pytest.mark.one_engine
def test_thousands_of_inputs(tmp_path: Path) -> None:
    """Two megabytes of names, which is what Linux takes on a command line."""
    folder = tmp_path.joinpath(*(letter * 240 for letter in "abc"))
    files = [folder / f"{number:05}{'n' * 240}.fa" for number in range(1900)]
    write_proteins(files)
    run = launch(tmp_path, "--input", "*/*/*/*.fa", *SHORT)
    assert run.code == 0, run.output
    assert [file for _, file in ledger(run.results)] == [str(path) for path in files]
    (split,) = (path for path in (run.folder / "work").glob("*/*/.command.sh") if "split_fasta" in path.read_text())
    assert len(split.read_text()) < 1000
    assert "1,900 files" in run.output and len(run.output) < 4000


FIND = f"""
include {{ existingPaths }} from '{PROJECT}/modules/paths/main.nf'
workflow {{
    def found = params.given.collect {{ given -> existingPaths('input', given, [type: 'file']) }}
    def names = found.collect {{ paths -> paths.collect {{ path -> path.name }} }}
    file('found.json').text = groovy.json.JsonOutput.toJson(names)
}}
"""


@pytest.mark.one_engine
def test_the_work_grows_with_the_number_of_names_and_no_faster(tmp_path: Path) -> None:
    """Each of 15,000 names compared with all others, or each begun anew with what follows, would take an hour."""
    names = [f"[Homo sapiens] kinase, {number:05}.fa" for number in range(15_000)]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    (tmp_path / "find.nf").write_text(FIND)
    given = ["in/*.fa", ",".join(f"in/{name}" for name in names)]
    (tmp_path / "parameters.json").write_text(json.dumps({"given": given}))
    command = [*nextflow_command(), "run", "find.nf", "-params-file", "parameters.json", "-ansi-log", "false"]

    def find() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=launch_environment(), capture_output=True, text=True, timeout=200
        )

    done = find()
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "found.json").read_text()) == [names, names]
    (tmp_path / "in" / "s kinase, 07500.fa").touch()
    refused = find()
    assert refused.returncode == 66
    message = f"in/{names[7500]}: the shell that links it would take {tmp_path}/in/s kinase, 07500.fa for it as well"
    assert message in refused.stdout + refused.stderr


MERGE = """
include { MERGE_EMBEDDINGS } from './modules/merge_embeddings/main.nf'
def made(name) {
    return file("${params.input}/${name}")
}
workflow {
    MERGE_EMBEDDINGS(
        channel.fromPath("${params.input}/shard-*", type: 'dir').collect(),
        made('manifest.parquet'),
        made('rejected.tsv'),
        made('split_summary.json'),
        made('model.json'),
        [],
        made('reuse_list.json'),
        '',
        'code',
    )
}
"""


@pytest.mark.one_engine
def test_hundreds_of_shards_are_merged_by_a_command_that_names_none(tmp_path: Path) -> None:
    run = Run(tmp_path / "made", range(400), shards=400)
    (run.folder / "reuse_list.json").write_text("[]")
    project = copy_project(tmp_path / "project")
    (project / "main.nf").write_text(MERGE)
    done = launch(tmp_path, "--input", run.folder, project=project)
    assert done.code == 0, done.output
    assert pq.read_table(done.results / ".virnucpro/unfinished/embeddings")["sequence_key"].to_pylist() == [
        key(each) for each in range(400)
    ]
    (command,) = (tmp_path / "work").glob("*/*/.command.sh")
    assert "shard-0" not in command.read_text()


@pytest.mark.parametrize(("name", "code"), [("it's [here]; & {a,b}", 0), once("$(touch ran)", 66), once('a"b', 66)])
def test_the_pipeline_lies_where_it_may(name: str, code: int, tmp_path: Path) -> None:
    project = copy_project(tmp_path / name)
    write_proteins([tmp_path / "in.fa"])
    run = launch(tmp_path, "-stub", "--input", "in.fa", *SHORT, project=project)
    assert run.code == code, run.output
    assert ("Nextflow cannot run a pipeline from a folder with this name; rename it" in run.output) == (code == 66)
    assert [path for path in tmp_path.rglob("ran")] == []
