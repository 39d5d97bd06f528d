"""What the page advises: made from what the run is, with commands and parameters that exist."""

from __future__ import annotations

import html
import importlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from schema_parameters import PROPERTIES
from synthetic_results import Run, make_results

from virnucpro.config import Config
from virnucpro.monitor.run_verdict import run_bottleneck
from virnucpro.output.files import parts_of
from virnucpro.report.next_steps import Findings, next_steps_section
from virnucpro.report.outliers import Outliers
from virnucpro.report.report import page_content
from virnucpro.report.tallies import RecordTally

ROOT = Path(__file__).resolve().parents[2]
NOTHING_WRONG = Findings("results", {}, [], RecordTally(statuses=Counter(embedded=9)), 0, False, None, True)
WORST = Findings(
    results="my results",
    metadata={"long_sequences": "truncate", "max_length": 1022},
    shards=[
        {
            "tokens": 10,
            "tokens_per_second": 10.0,
            "started": 0.0,
            "finished": 10.0,
            "startup_seconds": 9.0,
            "compute_seconds": 1.0,
            "device_uuid": f"GPU-{number}",
        }
        for number in range(2)
    ],
    records=RecordTally(Counter(embedded=6, rejected=3), Counter({"contains `digits` <b>": 2, "no residues": 1}), 1, 2),
    not_finite=4,
    equal=True,
    outliers=Outliers((1,), (2,), (0.1,), 5, 0.5, 0.9),
    neighbours=False,
)
#: ``full`` advises what ``truncate`` has no use for.
LONG = Findings("results", {"long_sequences": "full"}, [], WORST.records, 0, False, None, True)


def steps(found: Findings) -> list[str]:
    section = next_steps_section(found)
    return re.findall(r"<li>(.*?)</li>", section["data"])


def code(found: Findings) -> list[str]:
    return [html.unescape(text) for line in steps(found) for text in re.findall(r"<code>(.*?)</code>", line)]


def test_a_run_with_nothing_wrong_is_told_how_to_go_on() -> None:
    assert [line.split(":")[0] for line in steps(NOTHING_WRONG)] == [
        "Read the vectors in Python",
        "Take them into other tools",
        "Vectors of single residues",
        "Prove, now or in years, that nothing was lost or changed",
    ]


def test_what_is_wrong_comes_first() -> None:
    lines = steps(WORST)
    assert len(lines) == 11
    for line, text in zip(
        lines,
        (
            "All sampled vectors are equal",
            "4 sampled vectors are not finite",
            "3 records are rejected, 2 of them for “contains digits &lt;b&gt;”",
            "5 records are far from all others",
            "1 record is cut to 1,022 residues",
            "For the next run to be faster: raise --shard_residues",
            "What is each record near to?",
        ),
        strict=False,
    ):
        assert text in line
    assert any("2 records are longer than" in line for line in steps(LONG))
    assert "raise --shard_residues" in run_bottleneck(WORST.shards).verdict


@pytest.mark.parametrize("found", [NOTHING_WRONG, WORST, LONG], ids=["nothing wrong", "worst", "long"])
def test_every_command_and_parameter_that_is_named_exists(found: Findings, tmp_path: Path) -> None:
    named = code(found)
    assert len(named) >= 5
    outside = re.sub(r"<code>.*?</code>", "", " ".join(steps(found)))
    assert set(re.findall(r"--(\w+)", outside)) <= PROPERTIES.keys()
    for text in named:
        words = shlex.split(text) if not text.startswith("import") else []
        if words and words[0].startswith("bin/"):
            program = importlib.import_module(f"virnucpro.cli.{Path(words[0]).stem}")
            assert (ROOT / words[0]).is_file()
            taken(program, words[1:])
        elif words and words[0].startswith("--"):
            parameters(words)
        elif text.startswith("import"):
            compile(text, "report", "exec")
        else:
            assert words == [f"{found.results}/rejected.tsv"] or text == "cpus"


def taken(program: Any, arguments: list[str]) -> None:
    """The program's own parser takes the words, and its configuration their values."""
    given: list[Config] = []
    names = vars(program)
    kept = names["_run"]
    names["_run"] = given.append
    try:
        if arguments == ["--help"]:
            with pytest.raises(SystemExit, match="0"):
                program.main(arguments)
        else:
            assert program.main(arguments) == 0 and len(given) == 1
    finally:
        names["_run"] = kept


def parameters(words: list[str]) -> None:
    """Parameters of the schema, each with a value of its kind; ``-resume`` is Nextflow's own."""
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            rule = PROPERTIES[word.removeprefix("--")]
            if rule["type"] == "boolean":
                assert value in ("", "-resume")
            elif rule["type"] == "integer":
                assert int(value) >= rule.get("minimum", 0)
            else:
                assert value in rule["enum"]
        else:
            assert word == "-resume" or words[words.index(word) - 1].startswith("--")


def test_the_page_names_the_folder_and_nothing_of_the_way_there(tmp_path: Path) -> None:
    results = make_results(tmp_path / "secret" / "a & <b>", Run(records=200))
    section = next(each for each in page_content(results)[0] if each["id"] == "next_steps")
    assert "a &amp; &lt;b&gt;" in section["description"] and "secret" not in json.dumps(section)
    assert "<b>" not in section["data"] + section["description"]
    read = next(text for text in code_of(section) if text.startswith("import"))
    assert read == "import pandas; table = pandas.read_parquet('a & <b>/embeddings')"
    assert parts_of(results / "embeddings")


def code_of(section: Mapping[str, Any]) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<code>(.*?)</code>", section["data"])]
