"""Nothing that a user passes becomes a command: attacks over all parameters that hold text, through real wrappers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from e2e.launch import refusals
from pipeline_run import EMBED_IMAGE, PROJECT, TOOLS_IMAGE, nextflow_command, pipeline_environment
from schema_parameters import PROPERTIES

STAND_INS = Path(__file__).parent / "stand_ins"
ATTACKS = [
    *("$(touch ran)", "`touch ran`", ";touch ran;", "|touch ran", "&touch ran&", "x\ntouch ran\n", "x\rtouch ran\r"),
    *("'$(touch ran)'", '"$(touch ran)"', "';touch ran;'", '";touch ran;"', "\\$(touch ran)", "\\';touch ran;'"),
    *("$(touch\tran)", "${IFS}touch", "$'\\n'touch ran", "x --gpus all", "--help", ">ran", "<(touch ran)"),
    "{touch,ran}",
]
TEXTS = {name for name, rule in PROPERTIES.items() if "string" in rule["type"] and "enum" not in rule}
#: Parameters that may hold any text: each is quoted where a shell reads it, or no shell ever does.
QUOTED = {
    *("input", "sample_sheet", "id_column", "sequence_column", "reuse", "reference"),
    *("outdir", "model", "model_cache", "python_env"),
}
#: Those of one value; the others are lists of names, which are looked at one by one.
ONE_TEXT = TEXTS - {"input", "reuse"}
#: What each of the others takes, beside an attack.
HARMLESS = {"layers": "-1", "pooling": "mean", "gpu_request": "gres=gpu:1", "modules": "a/1:b"}
#: Parameter and value -> exit code and message.
Told = dict[tuple[str, str], tuple[int, str] | None]
HOSTILE, CONTROL = "'\"$(touch ran)`touch ran`", "x\rtouch ran\r"


def run(folder: Path, *arguments: str | Path, profile: str = "standard") -> subprocess.CompletedProcess[str]:
    """Run the pipeline in ``folder`` with the stand-ins of Docker and Slurm in the PATH."""
    calls = {"VIRNUCPRO_TEST_CALLS": str(folder / "calls")}
    environment = pipeline_environment(calls)
    environment["PATH"] = f"{STAND_INS}:{Path(sys.executable).parent}:{environment['PATH']}"
    command = [*nextflow_command(), "run", str(PROJECT), "-ansi-log", "false", "-profile", profile, "--gpus", "0"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def ran(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name == "ran"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_schema_refuses_every_attack_on_a_text_that_is_not_quoted(attack: str) -> None:
    assert TEXTS > QUOTED
    for name in TEXTS - QUOTED:
        pattern = re.compile(PROPERTIES[name]["pattern"])
        assert not pattern.fullmatch(attack) or name == "triton_cache", name
        assert pattern.fullmatch(HARMLESS.get(name, "x"))
    # A folder's name may hold more; it stands between double quotes.
    if re.search(r"[$`\"\\]", attack):
        assert not re.fullmatch(PROPERTIES["triton_cache"]["pattern"], attack)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each parameter is refused with, in one start: not quoted, an attack; any, control characters."""
    cases = [(name, HOSTILE) for name in sorted(TEXTS - QUOTED)] + [(name, CONTROL) for name in sorted(ONE_TEXT)]
    given = [{name: value} for name, value in cases]
    folder = tmp_path_factory.mktemp("attacks")
    answers = refusals(folder, "parameters", "checkParameters(each, schema)", given)
    return dict(zip(cases, answers, strict=True))


@pytest.mark.parametrize("name", sorted(TEXTS - QUOTED))
def test_an_attack_on_a_text_that_is_not_quoted_is_refused(name: str, told: Told) -> None:
    code, message = told[(name, HOSTILE)] or (0, "")
    assert code == 2
    assert message.startswith(f"--{name} is '")


def test_the_run_ends_before_a_task(tmp_path: Path) -> None:
    """All at once, so that none of them reaches a shell before it is looked at."""
    attacks = [word for name in sorted(TEXTS - QUOTED) for word in (f"--{name}", HOSTILE)]
    done = run(tmp_path, "--input", PROJECT / "tests/fixtures/few.fasta", *attacks)
    assert done.returncode == 2, done.stdout
    assert re.search(rf"error: --({'|'.join(TEXTS - QUOTED)}) is '", done.stdout + done.stderr)
    assert ran(tmp_path) == [] and list(tmp_path.glob("work/*/*/.command.run")) == []


@pytest.mark.parametrize("profile", ["standard", "slurm,docker"])
def test_names_that_are_quoted_are_names_and_nothing_else(profile: str, tmp_path: Path, inputs: Path) -> None:
    """The same run with every text as hostile as it may be, and its results where they were asked for."""
    hostile = 'it\'s;touch ran;"`touch ran`" & |(touch ran) #'
    folder = tmp_path / hostile
    folder.mkdir()
    for name in ("few.fasta", "model.pt"):
        (folder / f"{hostile} {name}").write_bytes((inputs / name).read_bytes())
    environment = tmp_path / "'$(touch ran)';touch ran;'"
    environment.symlink_to(sys.prefix)
    options = {
        "input": f"{hostile} few.fasta",
        "model": f"{hostile} model.pt",
        "outdir": f"results {hostile} $(touch ran)",
        "model_cache": f"cache {hostile}",
        "triton_cache": "triton ;touch ran; '",
        **{"id_column": f"id {hostile}", "sequence_column": f"sequence {hostile}"},
        **{"queue": "a,b", "gpu_queue": "c", "account": "lab", "qos": "long", "container_registry": "host:5000/lab"},
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    arguments += ["--python_env", str(environment)] if profile == "standard" else []
    # Nextflow quotes the work folder's name twice where it tells sbatch of the log: blanks do not reach Slurm whole.
    work = f"work {hostile}" if profile == "standard" else str(tmp_path / "work")
    done = run(folder, *arguments, "-work-dir", work, "--report", "false", profile=profile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(tmp_path) == []
    ledger = pq.read_table(folder / options["outdir"] / "manifest.parquet", columns=["file"])["file"].to_pylist()
    assert set(ledger) == {str(folder / options["input"])}
    calls = (folder / "calls").read_text().splitlines() if profile != "standard" else []
    jobs = [words for words in map(json.loads, calls) if "-J" in words]
    assert len(jobs) == (4 if calls else 0)
    assert all({"a,b", "--account=lab", "--qos=long"} <= set(words) for words in jobs)
    images = {word for words in map(json.loads, calls) for word in words if word.startswith("host:5000/lab/")}
    expected = {f"host:5000/lab/{image}" for image in (EMBED_IMAGE, TOOLS_IMAGE)}
    assert images == (expected if calls else set())


@pytest.mark.parametrize("name", sorted(ONE_TEXT))
def test_control_characters_are_refused(name: str, told: Told) -> None:
    code, message = told[(name, CONTROL)] or (0, "")
    assert code == (66 if PROPERTIES[name].get("format") else 2)
    assert message.startswith(f"--{name} holds a line break, tab or other control character")


def test_control_characters_end_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "--input", PROJECT / "tests/fixtures/few.fasta", "--outdir", CONTROL)
    assert done.returncode == 66
    assert "--outdir holds a line break, tab or other control character" in done.stdout + done.stderr
    assert ran(tmp_path) == []
