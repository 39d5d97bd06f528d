"""Embed a FASTA file shard by shard in one process, for the image whose embed_shard.py hands out what was recorded.

    record_shards.py FOLDER/few.fasta FOLDER/model.pt RESIDUES OUT

leaves in OUT the shards, as SPLIT_FASTA cuts them, and the folder that EMBED_SHARD makes of each. A task takes seconds
to import PyTorch: here it is done once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from virnucpro.cli.fetch import main as fetch
from virnucpro.cli.split import main as split
from virnucpro.config import EmbedConfig
from virnucpro.pipeline.embed import embed_shard


def main(fasta: str, model: str, residues: str, out: Path) -> None:
    out.mkdir(parents=True)
    inputs = out / "inputs.json"
    inputs.write_text(json.dumps([{"path": fasta, "name": fasta}]))
    described = ["--model-json", str(out / "model.json"), "--outdir", str(out)]
    if fetch(["--model", model, "--outdir", str(out)]) or split([*described, "--shard-residues", residues, fasta]):
        raise SystemExit("nothing to record")
    for shard in sorted((out / "shards").iterdir()):
        config = EmbedConfig(
            shard=shard,
            model=Path(model),
            model_json=out / "model.json",
            outdir=out / shard.stem,
            device="cpu",
            precision="fp32",
            threads=1,
        )
        embed_shard(config)


if __name__ == "__main__":
    main(*sys.argv[1:4], Path(sys.argv[4]))
