"""Sizes that keep each part readable at one sitting, and tests where they are looked for."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
CODE = (".py", ".nf", ".sh", ".config", ".test")


def tracked() -> list[Path]:
    """Code that is ours: what git knows, or without git what lies in our folders."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        files = [PROJECT / line for line in listed.stdout.splitlines()]
    else:
        folders = ("benchmarks", "bin", "conf", "containers", "examples", "modules", "tests", "tools")
        files = [path for folder in folders for path in (PROJECT / folder).rglob("*")]
        files += [PROJECT / "main.nf", PROJECT / "nextflow.config"]
    return [path for path in files if path.suffix in CODE and path.is_file()]


FILES = tracked()
#: Files of up to 330 lines -> why they are one.
LONGER_FILES = {
    "tests/report/synthetic_results.py": "a results folder made by hand, table after table",
}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_files_were_found() -> None:
    assert len(FILES) > 150


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest knows them by it: with two of a name, neither all at once nor each alone in one call is collected."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, times in names.items() if times > 1] == []
    assert PROJECT / "main.nf" in FILES


def test_no_file_is_longer_than_300_lines() -> None:
    sizes = {str(path.relative_to(PROJECT)): lines(path) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > (330 if name in LONGER_FILES else 300)} == {}


def is_kernel(function: ast.FunctionDef) -> bool:
    """Compiled by Triton: its parts cannot be called apart without cost in registers."""
    return any(re.search(r"\b(gluon_)?jit\b", ast.unparse(one)) for one in function.decorator_list)


def test_no_function_is_longer_than_60_lines() -> None:
    long = {}
    for path in FILES:
        if path.suffix == ".py" and "bash" not in path.read_text().partition("\n")[0]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and not is_kernel(node):
                    size = (node.end_lineno or node.lineno) - node.lineno + 1
                    long |= {f"{path.relative_to(PROJECT)}:{node.name}": size} if size > 60 else {}
    assert long == {}


def test_main_is_at_most_120_lines() -> None:
    assert lines(PROJECT / "main.nf") <= 120


@pytest.mark.parametrize("path", sorted(PROJECT.glob("modules/*/main.nf")), ids=lambda path: path.parent.name)
def test_a_process_is_at_most_25_lines_and_has_a_stub(path: Path) -> None:
    for process in re.findall(r"^process \w+ \{\n(.*?)^\}", path.read_text(), re.DOTALL | re.MULTILINE):
        body, stub, _ = process.partition("    stub:\n")
        assert len([line for line in body.splitlines() if line.strip()]) <= 25
        assert stub


def test_a_module_that_several_files_include_is_short() -> None:
    """Nextflow's first parser compiles it anew for each: with all of `modules/paths` a run began an eighth later."""
    sources = [PROJECT / "main.nf", *PROJECT.glob("modules/*/main.nf")]
    included = [set(re.findall(r"^include .*/(\w+)/main\.nf'", path.read_text(), re.MULTILINE)) for path in sources]
    times = Counter(name for names in included for name in names)
    assert times["words"] > 5
    assert [name for name in times if times[name] > 1 and lines(PROJECT / "modules" / name / "main.nf") > 50] == []


def test_paths_of_a_process_have_their_options_in_parentheses() -> None:
    """Without them Nextflow's first parser gives up its quick way through the file, and takes the slow one all over."""
    bare = {
        path.parent.name: re.findall(r"^ +path [^(\n]+, \w+: .*", path.read_text(), re.MULTILINE)
        for path in PROJECT.glob("modules/*/main.nf")
    }
    assert {name: found for name, found in bare.items() if found} == {}


@pytest.mark.parametrize("path", sorted(PROJECT.glob("conf/*.config")), ids=lambda path: path.stem)
def test_a_profile_is_at_most_15_lines(path: Path) -> None:
    assert path.name == "base.config" or lines(path) <= 15


def test_every_module_has_its_nf_test() -> None:
    modules = {path.parent.name for path in PROJECT.glob("modules/*/main.nf")}
    tests = {path.name.removesuffix(".nf.test") for path in PROJECT.glob("tests/nf/*.nf.test")}
    assert tests == modules | {"pipeline"}


def pins(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements", "requirements-dev"])
def test_both_locks_differ_in_pytorch_and_nvidias_packages_alone(lock: str) -> None:
    """So that a test marked one_torch says the same on either."""
    differing = {name for name, _ in pins(f"{lock}.lock") ^ pins(f"{lock}-cu12.lock")}
    assert {name for name in differing if not name.startswith(("nvidia-", "cuda-"))} == {"torch"}
    assert "triton" in {name for name, _ in pins(f"{lock}.lock")}
