"""The command lines of the task scripts. Heavy imports stay inside the mains: a spawned worker imports this again."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from virnucpro import __version__
from virnucpro.config import (
    ALPHABETS,
    DEVICES,
    EMBEDDING_DTYPES,
    GAPS,
    LONG_SEQUENCES,
    PRECISIONS,
    EmbedConfig,
    MergeConfig,
    ReportConfig,
    SplitConfig,
    VectorConfig,
)
from virnucpro.errors import UsageError, run_reporting_errors

#: A command line holds some thousand paths, and no more.
_LIST = 'a JSON list of {"path": ..., "name": what messages and the ledger call it}'


def fetch_main(argv: Sequence[str] | None = None) -> int:
    """Check a model's checkpoint and describe it in ``model.json``; an official name is downloaded first."""
    parser = _parser("fetch_model.py", fetch_main)
    parser.add_argument("--model", required=True, help="registry name, fair-esm .pt file or Hugging Face folder")
    parser.add_argument("--outdir", type=Path, default=Path("."), help="where model.json goes")
    parser.add_argument("--cache", type=Path, help="where downloaded models are kept by name (default: outdir)")
    options = parser.parse_args(argv)

    def run() -> None:
        from virnucpro.model.describe import describe_model
        from virnucpro.model.fetch import as_given, fetch_model, is_local

        model = options.model
        options.outdir.mkdir(parents=True, exist_ok=True)
        kept = (options.cache or options.outdir).resolve() / model
        description = describe_model(as_given(Path(model)) if is_local(model) else fetch_model(model, kept))
        (options.outdir / "model.json").write_text(json.dumps(description, indent=2) + "\n")
        left_out = f"; left out: {', '.join(description['left_out'])}" if description["left_out"] else ""
        print(
            f"{description['name']}: {description['layers']} layers, {description['embed_dim']} dimensions, "
            f"{description['parameters']:,} parameters, sha256 {description['weights_sha256'][:12]}{left_out}"
        )

    return run_reporting_errors("fetch_model.py", run)


def split_main(argv: Sequence[str] | None = None) -> int:
    """Split FASTA into shards of equal cost, with a ledger that has one row for every record."""
    parser = _parser("split_fasta.py", split_main)
    parser.add_argument("inputs", nargs="*", type=Path, metavar="FASTA", help="also compressed; - is standard input")
    parser.add_argument("--inputs-from", type=Path, metavar="LIST", help=f"further FASTA files: {_LIST}")
    parser.add_argument("--model-json", required=True, type=Path, help="description written by fetch_model.py")
    parser.add_argument("--outdir", type=Path, default=Path("."))
    parser.add_argument("--shard-residues", type=int, default=SplitConfig.shard_residues, help="residues per shard")
    parser.add_argument(
        "--shards-at-least", type=int, default=SplitConfig.shards_at_least, help="number of GPUs that wait for work"
    )
    parser.add_argument("--no-dedup", action="store_true", help="embed identical sequences once each")
    _add_reuse_options(parser)
    parser.add_argument("--strict", action="store_true", help="a record that would be rejected ends the run")
    parser.add_argument(
        "--alphabet", choices=ALPHABETS, default=SplitConfig.alphabet, help="protein: take what looks like nucleotides"
    )
    parser.add_argument(
        "--gaps", choices=GAPS, default=SplitConfig.gaps, help="what becomes of - and inner . (unknown: read as X)"
    )
    _add_vector_options(parser)
    options = parser.parse_args(argv)

    def run() -> None:
        # The threads that numpy starts for matrix products, of which a split has none, would spin before they sleep.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Arrow's memory comes from malloc, which keeps what is freed (``split.workers``).
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        from virnucpro.path_lists import named_paths
        from virnucpro.split.split import split

        inputs = named_paths(options.inputs, options.inputs_from)
        reuse = named_paths(options.reuse, options.reuse_from)
        split(
            SplitConfig(
                inputs=inputs.paths,
                names=inputs.names,
                outdir=options.outdir,
                model_json=options.model_json,
                shard_residues=options.shard_residues,
                shards_at_least=options.shards_at_least,
                deduplicate=not options.no_dedup,
                reuse=reuse.paths,
                reuse_names=reuse.names,
                strict=options.strict,
                alphabet=options.alphabet,
                gaps=options.gaps,
                **_vector_options(options),
            )
        )

    return run_reporting_errors("split_fasta.py", run)


def embed_main(argv: Sequence[str] | None = None) -> int:
    """Embed one shard with ESM-2 on one GPU, or on the CPU."""
    parser = _parser("embed_shard.py", embed_main)
    parser.add_argument("--shard", required=True, type=Path, help="a shard of split_fasta.py")
    parser.add_argument("--model", required=True, type=Path, help="fair-esm .pt file or Hugging Face folder")
    parser.add_argument("--model-json", required=True, type=Path, help="description written by fetch_model.py")
    parser.add_argument("--outdir", required=True, type=Path, help="made whole at the end, or not at all")
    parser.add_argument("--device", choices=DEVICES, default=EmbedConfig.device)
    parser.add_argument("--token-budget", type=int, help="tokens per batch (default: measured from free memory)")
    parser.add_argument("--attempt", type=int, default=EmbedConfig.attempt, help="each further one halves the budget")
    parser.add_argument("--workers", type=int, default=EmbedConfig.workers, help="loader processes")
    parser.add_argument("--prefetch", type=int, default=EmbedConfig.prefetch, help="batches each worker prepares ahead")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    _add_vector_options(parser)
    options = parser.parse_args(argv)

    def run() -> None:
        config = EmbedConfig(
            shard=options.shard,
            model=options.model,
            model_json=options.model_json,
            outdir=options.outdir,
            device=options.device,
            token_budget=options.token_budget,
            attempt=options.attempt,
            workers=options.workers,
            prefetch=options.prefetch,
            threads=options.threads,
            **_vector_options(options),
        )
        from virnucpro.pipeline.embed import embed_shard

        embed_shard(config)

    return run_reporting_errors("embed_shard.py", run)


def merge_main(argv: Sequence[str] | None = None) -> int:
    """Merge the shards into one result in input order, joined with the metrics, and prove that nothing is missing."""
    parser = _parser("merge_embeddings.py", merge_main)
    parser.add_argument("shard_dirs", nargs="*", type=Path, metavar="SHARD_DIR", help="what embed_shard.py left")
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--split-summary", required=True, type=Path)
    parser.add_argument("--model-json", required=True, type=Path)
    parser.add_argument("--outdir", required=True, type=Path, help="made whole at the end, or not at all")
    parser.add_argument("--shards-in", type=Path, metavar="FOLDER", help="further shards: the folders shard-* in it")
    _add_reuse_options(parser)
    parser.add_argument("--embedding-dtype", choices=EMBEDDING_DTYPES, default=MergeConfig.embedding_dtype)
    options = parser.parse_args(argv)

    def run() -> None:
        from virnucpro.merge.merge import merge
        from virnucpro.path_lists import named_paths, shard_folders

        summary = merge(
            MergeConfig(
                manifest=options.manifest,
                split_summary=options.split_summary,
                model_json=options.model_json,
                shard_dirs=(*options.shard_dirs, *shard_folders(options.shards_in)),
                outdir=options.outdir,
                reuse=named_paths(options.reuse, options.reuse_from).paths,
                embedding_dtype=options.embedding_dtype,
            )
        )
        print(*summary["verdict"], sep="\n")

    return run_reporting_errors("merge_embeddings.py", run)


def report_main(argv: Sequence[str] | None = None) -> int:
    """Draw a finished results folder as one page of HTML, with MultiQC."""
    parser = _parser("report.py", report_main)
    parser.add_argument("--results", required=True, type=Path, help="what merge_embeddings.py made")
    parser.add_argument("--outdir", required=True, type=Path, help="where multiqc_report.html goes")
    options = parser.parse_args(argv)

    def run() -> None:
        from virnucpro.report.report import report

        report(ReportConfig(results=options.results, outdir=options.outdir))

    return run_reporting_errors("report.py", run)


def _parser(program: str, main: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    return parser


def _add_reuse_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reuse", action="append", type=Path, default=[], metavar="RESULTS")
    parser.add_argument("--reuse-from", type=Path, metavar="LIST", help=f"further results: {_LIST}")


def _add_vector_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-length", type=int, default=VectorConfig.max_length, help="residues kept of a sequence")
    parser.add_argument("--long-sequences", choices=LONG_SEQUENCES, default=VectorConfig.long_sequences)
    parser.add_argument(
        "--layers", default=_comma(VectorConfig.layers), help="comma-separated; 0 is the embedding layer, -1 the last"
    )
    parser.add_argument("--pooling", default=_comma(VectorConfig.pooling), help="comma-separated: mean, bos, max")
    parser.add_argument("--per-residue", action="store_true", help="keep a vector for every residue too")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=VectorConfig.precision, help="on a GPU; a CPU computes in fp32"
    )
    parser.add_argument("--embedding-dtype", choices=EMBEDDING_DTYPES, default=VectorConfig.embedding_dtype)


def _vector_options(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of VectorConfig that ``options`` holds."""
    given = {each.name: getattr(options, each.name) for each in fields(VectorConfig)}
    return {**given, "layers": _integers("layers", options.layers), "pooling": _words(options.pooling)}


def _comma(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _integers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise UsageError(f"--{name} is '{text}', but must be whole numbers separated by commas") from None
