"""fetch_model.py"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from virnucpro.cli.program import run_program
from virnucpro.config import FetchConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Resolve a model, check its checkpoint and describe it in ``model.json``; names are downloaded."""
    return run_program("fetch_model.py", main.__doc__, FetchConfig, _run, argv)


def _run(config: FetchConfig) -> None:
    from virnucpro.model.describe import describe_model
    from virnucpro.model.fetch import fetch_model, is_local

    config.outdir.mkdir(parents=True, exist_ok=True)
    if is_local(config.model):
        described = describe_model(Path(config.model))
    else:
        path = fetch_model(config.model, config.outdir / config.model, cache=config.cache)
        described = describe_model(path, config.model)
    described.write(config.outdir / "model.json")
    left_out = f"; left out: {', '.join(described.left_out)}" if described.left_out else ""
    print(
        f"{described.name}: {described.layers} layers, {described.embed_dim} dimensions, "
        f"{described.parameters:,} parameters, sha256 {described.weights_sha256[:12]}{left_out}"
    )
