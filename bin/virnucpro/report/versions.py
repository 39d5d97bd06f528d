"""Which software a run was made with, for the section of it that MultiQC's pages have."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from virnucpro import __version__
from virnucpro.output.files import embedding_parts
from virnucpro.output.schema import read_metadata

#: By its process, as nf-core's pages group it -> the versions of each; several where shards differ.
Versions = Mapping[str, Mapping[str, list[str]]]

#: What the tasks without a model are made of; they share an environment with REPORT.
_PACKAGES: Final = {"NumPy": "numpy", "PyArrow": "pyarrow", "MultiQC": "multiqc"}


def software_versions(results: Path, nextflow: str | None = None) -> Versions:
    """Versions of finished results, and of what draws their page; ``nextflow`` is that of the run, where one ran."""
    parts = embedding_parts(results)
    metadata = read_metadata(parts[0]) if parts else {}
    found: dict[str, dict[str, list[str]]] = {
        "EMBED_SHARD": {"PyTorch": _told(metadata, "torch"), "CUDA": _told(metadata, "cuda")},
        "Model": {str(metadata.get("model")): _weights(metadata)},
        "REPORT": {"Python": [platform.python_version()], **{name: [version(of)] for name, of in _PACKAGES.items()}},
        "Workflow": {
            "Nextflow": [nextflow] if nextflow else [],
            "virnucpro-embed": _told(metadata, "pipeline_version") or [__version__],
        },
    }
    known = {group: {name: told for name, told in each.items() if told} for group, each in found.items()}
    return {group: each for group, each in known.items() if each}


def _told(metadata: Mapping[str, Any], key: str) -> list[str]:
    """What the files say of one package; results without vectors of their own say that there is none."""
    return [each for each in str(metadata.get(key) or "none").split(", ") if each != "none"]


def _weights(metadata: Mapping[str, Any]) -> list[str]:
    """The model's revision on its hub, else the first digits of the digest of its weights."""
    if not metadata.get("weights_sha256"):
        return []
    return [str(metadata.get("model_revision") or f"weights sha256 {metadata['weights_sha256'][:12]}")]
