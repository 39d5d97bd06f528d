"""What README.md, CONTRIBUTING.md and docs tell the reader to type: every command, with the block that it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/*.md"))]

_SCRIPT = r"(?:\./)?(?:bin|containers|examples|tools)/\w+\.(?:py|sh)|benchmarks/\w+/\w+\.py"
_TOOLS = "python3?|pip|git|docker|apptainer|bash|sh|zcat|conda|kubectl|awk|sed|tr|iconv|tar|unzip|7z|unrar|xxh128sum"
_PROGRAM = rf"(?:(?:nextflow|make|virnucpro|{_SCRIPT})(?= |$)|(?:{_TOOLS}) )"
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ +)*{_PROGRAM}")
#: Names of a tool in a sentence.
_MENTIONS = {"nextflow run", "bin/verify.py", "nextflow config", "virnucpro", "virnucpro embed", "virnucpro neighbours"}
#: How the blocks begin that hold no commands.
_OTHER_BLOCKS = (
    "FASTA ─ SPLIT_FASTA",
    "flowchart LR",
    "cli        a command line",
    "results/",
    "process { withLabel",
    "// The queues'",
    "google {",
    "k8s {",
    "# lab.yaml",
    "No results: ",
)


@dataclass(frozen=True)
class Block:
    """Commands that a page shows together, continued lines joined and comments taken off."""

    page: str
    commands: tuple[str, ...]


def is_command(text: str) -> bool:
    return _COMMAND.match(text) is not None and text not in _MENTIONS


def code_blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block, and ('', text) of each indented one."""
    fence: str | None = None
    lines: list[str] = []
    for line in [*page.read_text().splitlines(), ""]:
        fenced = re.match(r" *```(\w*)", line)
        if fence is None and lines and not line.startswith("    "):
            yield "", "\n".join(lines)
            lines = []
        if fenced and fence is None:
            fence = fenced[1]
        elif fenced and fence is not None:
            yield fence, "\n".join(lines)
            fence, lines = None, []
        elif fence is not None:
            lines.append(line)
        elif line.startswith("    "):
            lines.append(line[4:])


def command_blocks(page: Path) -> list[Block]:
    """The page's blocks of commands, then each command within a sentence as a block of its own.

    Raises:
        ValueError: a block that is neither commands nor one of the kinds known to be something else.
    """
    found = []
    for language, text in code_blocks(page):
        if language in ("python", "mermaid", "csv", "r", "nextflow"):
            continue
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        commands = [re.sub(r"\s+# .*", "", line) for line in lines if line.strip()]
        if all(is_command(command) for command in commands):
            found.append(Block(page.name, tuple(commands)))
        elif not text.startswith(_OTHER_BLOCKS) or any(is_command(command) for command in commands):
            raise ValueError(f"{page.name}: commands or not? {text}")
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`", re.sub(r"^    .*$", "", prose, flags=re.MULTILINE))
    return found + [Block(page.name, (text,)) for text in dict.fromkeys(inline) if is_command(text)]


def python_snippets(page: Path) -> list[str]:
    return [text for language, text in code_blocks(page) if language == "python"]
