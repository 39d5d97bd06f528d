"""Runs MultiQC over the sections: one page that needs no other file and no network."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from virnucpro.errors import OutputError, UsageError
from virnucpro.report.page_style import STYLE
from virnucpro.report.sections import Section
from virnucpro.report.versions import Versions

REPORT_FILE: Final = "multiqc_report.html"

#: By number, as Plotly does not know all of them by name. Of a name with a slash, as a MIG device's, MultiQC would keep
#: what is behind the last.
_ENTITIES: Final = {ord(letter): f"&#{ord(letter)};" for letter in "&<>\"'/"}


def require_multiqc() -> None:
    """Say before the work that MultiQC is missing.

    Raises:
        UsageError: it is not installed in this Python.
    """
    if importlib.util.find_spec("multiqc") is None:
        raise UsageError(
            f"MultiQC is not installed for {sys.executable}; pip install multiqc, or run with --report false"
        )


def render(
    sections: Sequence[Section], outdir: Path, header: Mapping[str, str], versions: Versions | None = None
) -> Path:
    """Write ``multiqc_report.html`` into ``outdir``, from sections in the order given, and return its path.

    ``versions`` of the software stand at its end.

    Raises:
        OutputError: MultiQC failed; the message ends with its last line.
    """
    require_multiqc()
    outdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="multiqc-", dir=outdir) as folder:
        content = Path(folder) / "content"
        content.mkdir()
        for section in sections:
            (content / f"{section['id']}_mqc.json").write_text(json.dumps(_escaped(section), allow_nan=False))
        (content / "virnucpro_mqc_versions.yml").write_text(_as_yaml(_as_text(versions or {})))
        config = Path(folder) / "multiqc_config.json"
        style = Path(folder) / "page.css"
        style.write_text(STYLE)
        config.write_text(_as_yaml({**_config(sections, header), "custom_css_files": [str(style)]}))
        environment = {"HOME": folder, "MPLCONFIGDIR": folder, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
        finished = subprocess.run(
            _command(config, Path(folder), content),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        page = Path(folder) / REPORT_FILE
        if finished.returncode or not page.is_file():
            said = (finished.stderr.strip() or finished.stdout.strip() or "it said nothing").splitlines()[-1]
            if "No space left on device" in said:
                raise OutputError(f"MultiQC found no space for a page in {folder} or {outdir}; free some there")
            raise OutputError(
                f"MultiQC ended with {finished.returncode} and no page: {said[:300]}; run with --report false to do "
                "without"
            )
        page.replace(outdir / REPORT_FILE)
    return outdir / REPORT_FILE


def _escaped(section: Section) -> Section:
    """A section whose names are drawn as text: MultiQC and its plots take all for HTML, and some sections are."""
    if section["plot_type"] == "html":
        return section
    plain = {**section, "data": _as_text(section["data"])}
    if section["plot_type"] == "bargraph":
        plain["categories"] = _as_text(section["categories"])
    if section["plot_type"] == "linegraph":
        plain["pconfig"] = {**section["pconfig"], "colors": _as_text(section["pconfig"]["colors"])}
    return plain


def _as_yaml(value: Any) -> str:
    """JSON without its escapes for letters, of which YAML would make two halves; the page is HTML, and has its own."""
    return json.dumps(value, ensure_ascii=False).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_as_text(name): _as_text(inner) for name, inner in value.items()}
    return value.translate(_ENTITIES) if isinstance(value, str) else value


def _command(config: Path, outdir: Path, content: Path) -> list[str]:
    options = ["--config", str(config), "--outdir", str(outdir), "--filename", REPORT_FILE, "--no-ansi"]
    return [sys.executable, "-m", "multiqc", *options, str(content)]


def _config(sections: Sequence[Section], header: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": "virnucpro-embed",
        "intro_text": "Protein sequences to ESM-2 embeddings: what was computed, how fast, and what it looks like.",
        "report_header_info": [{name: html.escape(value)} for name, value in header.items()],
        "custom_content": {"order": [section["id"] for section in sections]},
        "show_analysis_paths": False,
        "fn_clean_sample_names": False,
        "make_data_dir": False,
        "no_version_check": True,
        "no_ai": True,
        "plots_force_interactive": True,
        "plots_defer_loading_numseries": 1_000,
        "max_table_rows": 2_000,
        "log_filesize_limit": 200_000_000,
        "run_modules": ["custom_content"],
    }
