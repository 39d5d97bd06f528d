"""``ro-crate-metadata.json``: what results were made of, by what and how, as an RO-Crate of one run.

RO-Crate 1.1 with the profile Process Run Crate. Files are told by their names and digests; where they lie, and who ran
it and where, is told with ``--provenance full`` alone.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final

from virnucpro.merge.config import MergeConfig
from virnucpro.output.contracts import ModelDescription, RunSummary, SplitSummary
from virnucpro.output.files import DIGESTS_FILE, PROVENANCE_FILE
from virnucpro.output.inputs import InputFile

Entity = dict[str, Any]

_CRATE: Final = "https://w3id.org/ro/crate/1.1"
_PROFILE: Final = "https://w3id.org/ro/wfrun/process/0.5"
#: Terms of the profile that the crate's own context lacks, ``sha256`` among them.
_TERMS: Final = "https://w3id.org/ro/terms/workflow-run/context"
_LICENSE: Final = "Not stated: what is allowed depends on the input and on the model, of which these results are made."
_FORMATS: Final = {
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".tsv": "text/tab-separated-values",
    ".xxh128": "text/plain",
}
_RUN, _MODEL, _PIPELINE, _USER, _HOST = "#run", "#model", "#virnucpro-embed", "#user", "#host"


def write_provenance(
    results: Path,
    config: MergeConfig,
    split: SplitSummary,
    model: ModelDescription,
    summary: RunSummary,
    metadata: Mapping[str, Any],
    digests: Mapping[str, str],
) -> None:
    """Write the record into the folder of results, unless none was asked for.

    Args:
        results: the folder, with all else in it.
        config: what the merge was told of the run.
        split: where the inputs stand.
        model: its weights.
        summary: of the run.
        metadata: of the vectors.
        digests: of the files in the folder, by name.
    """
    if config.provenance == "none":
        return
    full = config.provenance == "full"
    inputs = [_input(each, number, full) for number, each in enumerate(split.inputs, 1)]
    parameters = [_parameter(name, value) for name, value in _parameters(summary, metadata).items()]
    files = [_file(results, name, digest) for name, digest in {**digests, DIGESTS_FILE: None}.items()]
    software = _software(config, metadata)
    who = _who(config) if full else []
    ended = config.ended or datetime.now(UTC).isoformat(timespec="seconds")
    run: Entity = {
        "@id": _RUN,
        "@type": "CreateAction",
        "name": f"Embedding of {summary.records} records with {model.name}",
        "startTime": config.started,
        "endTime": ended,
        "description": config.command,
        "instrument": {"@id": _PIPELINE},
        "object": _references([*inputs, _model(model), *parameters]),
        "result": _references(files),
        "agent": _references([each for each in who if each["@id"] == _USER]),
        "location": _references([each for each in who if each["@id"] == _HOST]),
    }
    graph = [_descriptor(), _root(files, summary, model, ended), run, *software, _model(model)]
    graph += [*inputs, *parameters, *who, *files, {"@id": _PROFILE, "@type": "CreativeWork", **_PROFILE_FACTS}]
    content = {"@context": [f"{_CRATE}/context", _TERMS], "@graph": [_known(each) for each in graph]}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # A file's name may be no UTF-8.
    (results / PROVENANCE_FILE).write_text(text, encoding="utf-8", errors="replace")


_PROFILE_FACTS: Final = {"name": "Process Run Crate", "version": "0.5"}


def _known(entity: Entity) -> Entity:
    """An entity without what is not known of it."""
    return {name: value for name, value in entity.items() if value is not None and value != []}


def _references(entities: list[Entity]) -> list[dict[str, str]]:
    return [{"@id": each["@id"]} for each in entities]


def _descriptor() -> Entity:
    about = {"conformsTo": {"@id": _CRATE}, "about": {"@id": "./"}}
    return {"@id": PROVENANCE_FILE, "@type": "CreativeWork", **about}


def _root(files: list[Entity], summary: RunSummary, model: ModelDescription, ended: str) -> Entity:
    return {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": _PROFILE},
        "name": f"Embeddings of proteins by {model.name}",
        "description": f"{summary.rows} vectors of {summary.records} records, made by virnucpro-embed.",
        "datePublished": ended,
        "license": _LICENSE,
        "hasPart": _references(files),
        "mentions": {"@id": _RUN},
    }


def _file(results: Path, name: str, digest: str | None) -> Entity:
    path = results / name
    return {
        "@id": name,
        "@type": "File",
        "name": name,
        "encodingFormat": _FORMATS.get(path.suffix),
        "contentSize": str(path.stat().st_size) if path.exists() else None,
        "identifier": _identifier(digest),
    }


def _identifier(digest: str | None) -> str | None:
    """The terms of RO-Crate have none for the digest that results have."""
    return digest and f"xxh3_128:{digest}"


def _input(file: InputFile, number: int, full: bool) -> Entity:
    """A file that is not among the results, so that its name is no address in the crate."""
    return {
        "@id": f"#input-{number}",
        "@type": "CreativeWork",
        "name": file.name if full else PurePosixPath(file.name).name,
        "contentSize": None if file.size is None else str(file.size),
        "identifier": _identifier(file.digest),
    }


def _model(model: ModelDescription) -> Entity:
    one = len(model.files) == 1
    return {
        "@id": _MODEL,
        "@type": "CreativeWork",
        "name": model.name,
        "version": model.revision,
        "description": f"{model.layers} layers of {model.embed_dim}, {model.parameters} parameters, {model.source}",
        "sha256": model.weights_sha256 if one else None,
        "identifier": None if one else f"sha256 of the sha256sum of {', '.join(model.files)}: {model.weights_sha256}",
    }


def _parameters(summary: RunSummary, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on a vector, but for model and input."""
    told = {name: value for name, value in summary.parameters.to_dict().items() if name != "reuse"}
    return {**told, **{name: metadata.get(name) for name in ("attention", "device_name")}}


def _parameter(name: str, value: Any) -> Entity:
    told = ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else value
    return {"@id": f"#parameter-{name}", "@type": "PropertyValue", "name": name, "value": told}


def _software(config: MergeConfig, metadata: Mapping[str, Any]) -> list[Entity]:
    """The pipeline, and what it ran on."""
    torch, cuda = (metadata.get(name) for name in ("torch", "cuda"))
    versions = {
        ("Nextflow", "https://www.nextflow.io/"): config.nextflow_version,
        ("Python", "https://www.python.org/"): platform.python_version(),
        ("PyTorch", "https://pytorch.org/"): torch if torch != "none" else None,
        ("CUDA", "https://developer.nvidia.com/cuda-toolkit"): cuda,
        ("PyArrow", "https://arrow.apache.org/"): version("pyarrow"),
        ("NumPy", "https://numpy.org/"): version("numpy"),
    }
    needed: list[Entity] = [
        {"@id": url, "@type": "SoftwareApplication", "name": name, "url": url, "softwareVersion": told}
        for (name, url), told in versions.items()
        if told
    ]
    pipeline = {
        "@id": _PIPELINE,
        "@type": "SoftwareApplication",
        "name": "virnucpro-embed",
        "softwareVersion": metadata["pipeline_version"],
        "identifier": config.commit,
        "softwareRequirements": _references(needed),
    }
    return [pipeline, *needed]


def _who(config: MergeConfig) -> list[Entity]:
    """Who started the run, and where: USER@HOST:FOLDER."""
    user, _, where = (config.launched or "").partition("@")
    host, _, folder = where.partition(":")
    if not user:
        return []
    return [
        {"@id": _USER, "@type": "Person", "name": user},
        {"@id": _HOST, "@type": "Place", "name": host, "description": folder},
    ]
