"""Which part of the package may import which, read from the source and seen in child processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from virnucpro.cli.command import COMMANDS

BIN = Path(__file__).parents[1] / "bin"
PACKAGE = BIN / "virnucpro"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOT = {
    "children",
    "compression",
    "config",
    "cuda_start",
    "device_errors",
    "errors",
    "fasta",
    "fasta_source",
    "fasta_text",
    "file_formats",
    "file_identity",
    "interrupts",
    "kernel_folder",
    "locks",
    "machine",
    "parity_bounds",
    "path_lists",
    "plain_text",
    "process",
    "shards",
    "unfinished",
    "windows",
}
#: Part -> parts of ours that it may import, beside itself and (all but the kernels) the root modules.
ALLOWED: dict[str, set[str]] = {
    "cli": {"api", "split", "pipeline", "merge", "neighbours", "report", "export"},
    "api": {"split", "pipeline", "merge", "neighbours", "report", "data", "model", "output", "monitor"},
    "split": {"output"},
    "pipeline": {"data", "model", "output", "monitor"},
    "merge": {"output", "monitor"},
    "neighbours": {"output"},
    "report": {"output", "monitor"},
    "export": {"output"},
    "model": {"kernels", "output"},
    "output": set(),
    "data": set(),
    "kernels": set(),
    "monitor": {"output"},
    "__main__": {"cli"},
    **{name: set() for name in (*ROOT, "__init__")},
}
#: (module, what it imports all the same) -> why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("neighbours/neighbours.py", "virnucpro.pipeline.device"): "what can be wrong with a GPU is told by one module",
    ("cli/fetch.py", "virnucpro.model.fetch"): "FETCH_MODEL is these two calls; a room would only pass them on",
    ("cli/fetch.py", "virnucpro.model.kept_descriptions"): "as above",
    ("pipeline/engine.py", "virnucpro.kernels.pooling"): "pools the states that the model returns; no part of ESM-2",
    ("pipeline/compile_ahead.py", "virnucpro.kernels.launching"): "compiles the model's kernels and the pooling's",
    ("pipeline/compile_apart.py", "virnucpro.kernels.launching"): "as above",
    ("pipeline/compile_apart.py", "virnucpro.kernels.device"): "a card that is not here, by its facts",
    ("cli/compile.py", "virnucpro.model.known_shape"): "asked before PyTorch is imported",
}
#: Part -> packages of others that it must not import.
FORBIDDEN: dict[str, set[str]] = {
    "data": {"pyarrow", "triton"},
    "output": {"torch", "triton"},
    "monitor": {"torch", "triton"},
    "split": {"torch", "triton"},
    "merge": {"torch", "triton"},
    "report": {"torch", "triton"},
    "export": {"torch", "triton", "pandas", "h5py", "anndata", "faiss", "skbio"},
    "cli": {"torch", "triton", "pyarrow", "numpy"},
}
#: What callers may have, which no module imports; and what only those that read other formats than FASTA, or DNA, do.
CALLERS_OWN: Final = {"esm", "transformers"}
READERS: Final = {"Bio": {"split/annotated.py", "split/six_frame.py"}, "pyrodigal_gv": {"split/genes.py"}}
#: Root module -> what it needs beside the standard library: to hash and to decompress.
ROOT_NEEDS: dict[str, set[str]] = {
    "compression": {"zstandard"},
    "fasta_source": {"numpy"},
    "shards": {"numpy"},
    "windows": {"numpy"},
}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Full names of what a module imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module))
            if node.module == "virnucpro":
                found.update(f"virnucpro.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_directions(path: Path) -> None:
    part, module = part_of(path), str(path.relative_to(PACKAGE))
    assert part in ALLOWED, f"{part}: a new part of the package; say in ALLOWED what it may import"
    names = {name for name in imported(path) if (module, name) not in EXCEPTIONS}
    ours = {name.split(".")[1] for name in names if name.startswith("virnucpro.")} - {part, "__version__"}
    if part == "__init__":
        assert not names - {"importlib"}
    assert ours <= ALLOWED[part] | (ROOT if part != "kernels" else set())
    others = {name.split(".")[0] for name in names} - {"virnucpro"}
    assert not others & (FORBIDDEN.get(part, set()) | CALLERS_OWN)
    assert all(module in readers for package, readers in READERS.items() if package in others)
    if part in ROOT:
        assert others <= sys.stdlib_module_names | ROOT_NEEDS.get(part, set())


def test_every_exception_is_needed() -> None:
    assert {(module, name) for module, name in EXCEPTIONS if name in imported(PACKAGE / module)} == set(EXCEPTIONS)


def test_the_rules_were_applied_to_the_whole_package() -> None:
    assert len(MODULES) > 40
    assert {part_of(path) for path in MODULES} >= {"cli", "data", "kernels", "model", "monitor", "output", "pipeline"}


@pytest.mark.parametrize("name", sorted({"api", *ALLOWED["api"], "kernels"} - {"data", "pipeline"}))
def test_init_files_import_nothing(name: str) -> None:
    assert imported(PACKAGE / name / "__init__.py") <= {"__future__"}


@pytest.mark.parametrize("path", sorted(BIN.glob("*.py")), ids=lambda path: path.name)
def test_programs_only_import_their_main(path: Path) -> None:
    (main,) = imported(path) - {"virnucpro.cli.program"}
    assert main.startswith("virnucpro.cli.")
    assert path.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        *(
            ([f"virnucpro.cli.{name}"], ["torch", "triton", "pyarrow", "numpy", "virnucpro.model", "virnucpro.data"])
            for name in sorted({*COMMANDS.values(), "command"})
        ),
        (["virnucpro.split.split"], ["torch", "triton"]),
        (["virnucpro.merge.merge"], ["torch", "triton"]),
        (["virnucpro.output.writer", "virnucpro.output.ledger", "virnucpro.monitor.metrics"], ["torch", "triton"]),
        (["virnucpro.export.export"], ["torch", "triton", "pandas", "h5py", "anndata", "faiss", "skbio"]),
        (["virnucpro.data"], ["triton", "pyarrow", "virnucpro.model", "virnucpro.kernels"]),
        (["virnucpro.model.registry"], ["torch", "triton"]),
        (["virnucpro"], ["torch", "pyarrow", "numpy", "virnucpro.api"]),
        (["virnucpro.model.fetch", "virnucpro.model.kept_descriptions"], ["torch", "triton"]),
        (["virnucpro.model.known_shape"], ["torch", "triton"]),
    ],
    ids=lambda names: names[0],
)
def test_importing_leaves_out(modules: list[str], absent: list[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print([n for n in {absent!r} if n in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(BIN), "PATH": ""}, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


def test_there_is_no_circle() -> None:
    """Imports for the sake of types count too: what needs a type needs its module."""
    names = {".".join(path.relative_to(BIN).with_suffix("").parts): path for path in MODULES}
    uses = {name: imported(path) & names.keys() - {name} for name, path in names.items()}
    while free := {name for name, used in uses.items() if not used & uses.keys()}:
        uses = {name: used for name, used in uses.items() if name not in free}
    assert uses == {}


def test_no_room_is_a_fifth_of_the_package() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in MODULES}
    rooms = {path.parent for path in MODULES} - {PACKAGE}
    largest = max(sum(size for path, size in sizes.items() if path.parent == room) for room in rooms)
    assert largest < 0.2 * sum(sizes.values())
