"""What to do next, made from what the run is: each line with the command or the parameter for it."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virnucpro.monitor.run_verdict import run_bottleneck
from virnucpro.output.files import EMBEDDINGS_DIR, REJECTED_FILE
from virnucpro.report.outliers import Outliers
from virnucpro.report.sections import Section, list_of
from virnucpro.report.tallies import RecordTally


@dataclass(frozen=True)
class Findings:
    """What the page found of a run.

    Attributes:
        results: name of its folder, without the way there.
        metadata: of its vectors.
        not_finite: sampled vectors with a NaN or an infinity.
        equal: whether all sampled vectors are.
        neighbours: whether nearest neighbours were looked for.
    """

    results: str
    metadata: Mapping[str, Any]
    shards: Sequence[Mapping[str, Any]]
    records: RecordTally
    not_finite: int
    equal: bool
    outliers: Outliers | None
    neighbours: bool

    def path(self, *names: str) -> str:
        """Of a file in the results, as a shell takes it."""
        return shlex.quote("/".join((self.results, *names)))


def next_steps_section(found: Findings) -> Section:
    """What is wrong first, then what gives more, then how to read and prove the results."""
    lines = [*_wrong(found), *_more(found), *_always(found)]
    where = f"<code>{html.escape(found.path())}</code> stands for the run's output folder"
    return {
        "id": "next_steps",
        "section_name": "What to do next",
        "description": f"{where}; parameters go to the run's own command, scripts lie in the pipeline's folder.",
        "plot_type": "html",
        "data": list_of(lines),
    }


def _wrong(found: Findings) -> list[str]:
    lines = []
    if found.equal:
        lines.append(f"All sampled vectors are equal: first prove the results with `bin/verify.py {found.path()}`.")
    if found.not_finite:
        lines.append(f"{_counted(found.not_finite, 'sampled vector')} not finite: embed again with `--precision fp32`.")
    rejected = found.records.statuses.get("rejected", 0)
    if rejected:
        why = ""
        if found.records.reasons:
            ((reason, count),) = found.records.reasons.most_common(1)
            of = "" if count == rejected else f"{count:,} of them "
            why = f", {of}for “{reason[:80].replace('`', '')}”"
        listed = f"`{found.path(REJECTED_FILE)}` lists each with its file and line"
        lines.append(f"{_counted(rejected, 'record')} rejected{why}: {listed}.")
    return lines


def _more(found: Findings) -> list[str]:
    lines = []
    far = found.outliers.beyond if found.outliers is not None else 0
    if far:
        lines.append(f"{_counted(far, 'record')} far from all others: look at those named under Outliers.")
    rule = found.metadata.get("long_sequences")
    if found.records.truncated and rule == "truncate":
        cut = f"cut to {found.metadata.get('max_length') or 0:,} residues"
        lines.append(
            f"{_counted(found.records.truncated, 'record')} {cut}: `--long_sequences window` embeds all of each."
        )
    if found.records.beyond_trained_length and rule == "full":
        long = "longer than what models are trained on in one piece"
        lines.append(
            f"{_counted(found.records.beyond_trained_length, 'record')} {long}: `--long_sequences window` keeps to it."
        )
    advice = _advice(found.shards)
    if advice:
        lines.append(f"For the next run to be faster: {advice}.")
    if not found.neighbours and found.records.statuses.total() > 1:
        lines.append("What is each record near to? `--neighbours 10 -resume` only adds the search.")
    return lines


def _always(found: Findings) -> list[str]:
    folder = f"{found.results}/{EMBEDDINGS_DIR}"
    return [
        f"Read the vectors in Python: `import pandas; table = pandas.read_parquet({folder!r})`.",
        f"Take them into other tools: `bin/export.py --results {found.path()} --to h5ad --outdir export-h5ad`; "
        "`bin/export.py --help` names the other layouts.",
        "Vectors of single residues: `--per_residue` embeds once more and writes both.",
        f"Prove, now or in years, that nothing was lost or changed: `bin/verify.py {found.path()}`.",
    ]


def _advice(shards: Sequence[Mapping[str, Any]]) -> str | None:
    """The setting that the verdict names, where it names one."""
    judged = run_bottleneck(shards)
    _, _, advice = judged.verdict.rpartition("; ")
    return advice if judged.severity in ("mild", "critical") and "nothing to change" not in advice else None


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{' is' if number == 1 else 's are'}"
