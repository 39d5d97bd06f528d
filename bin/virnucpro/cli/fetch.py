"""fetch_model.py"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from virnucpro.cli.program import run_program
from virnucpro.config import FetchConfig
from virnucpro.plain_text import visible


def main(argv: Sequence[str] | None = None) -> int:
    """Check a model's checkpoint and describe it in ``model.json``; what is none here is downloaded first."""
    return run_program("fetch_model.py", main.__doc__, FetchConfig, _run, argv)


def _run(config: FetchConfig) -> None:
    from virnucpro.model.fetch import as_given, cache_name, fetch_model, is_local
    from virnucpro.model.kept_descriptions import describe_once

    config.outdir.mkdir(parents=True, exist_ok=True)
    if is_local(config.model) and config.model_revision is None:
        given = as_given(Path(config.model))
    else:
        kept = (config.cache or config.outdir).resolve() / cache_name(config.model)
        given = fetch_model(config.model, kept, config.model_revision)
    described = describe_once(given)
    described.write(config.outdir / "model.json")
    left_out = f"; left out: {', '.join(described.left_out)}" if described.left_out else ""
    told = (
        f"{described.name}: {described.layers} layers, {described.embed_dim} dimensions, "
        f"{described.parameters:,} parameters, sha256 {described.weights_sha256[:12]}{left_out}"
    )
    print(visible(told))
