"""Every default and range, once: fields here are options of programs; the Nextflow schema is tested against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from virnucpro.errors import UsageError


class Precision(NamedTuple):
    """What a precision means; types are torch's names.

    ``stream`` is what the residual stream and activations are kept in, of ``value_bytes`` each; ``weight_bytes`` are
    those of one layer's weights for each D^2.
    """

    stream: str
    value_bytes: int
    weight_bytes: int


#: In fp8 the product after attention has 16-bit weights.
PRECISIONS: Final[Mapping[str, Precision]] = MappingProxyType(
    {
        "fp16": Precision("float16", 2, 24),
        "bf16": Precision("bfloat16", 2, 24),
        "fp32": Precision("float32", 4, 48),
        "fp8": Precision("bfloat16", 2, 13),
    }
)
POOLINGS: Final = ("mean", "bos", "max")
EMBEDDING_DTYPES: Final = ("float32", "float16")
LONG_SEQUENCES: Final = ("truncate", "full", "window")
ALPHABETS: Final = ("auto", "protein")
GAPS: Final = ("remove", "unknown", "reject")
DEVICES: Final = ("auto", "cuda", "cpu", "mps")
TRANSLATIONS: Final = ("genes", "six_frame")
#: What a run's record tells of where files lie, who ran it and where: their names alone, all, or there is none.
PROVENANCES: Final = ("names", "full", "none")

#: The model of who names none.
DEFAULT_MODEL: Final = "esm2_t33_650M_UR50D"
#: Residues per sequence: ESM-2 was trained on crops of 1,024 tokens, two of which are <cls> and <eos>.
TRAINED_RESIDUES: Final = 1022
DEFAULT_MAX_LENGTH: Final = TRAINED_RESIDUES
#: NCBI's translation tables, by number.
GENETIC_CODES: Final = (*range(1, 7), *range(9, 17), *range(21, 34))
#: Nucleotides of a chunk: VirNucPro has classifiers for 500 and 300.
DEFAULT_CHUNK: Final = 500
#: Windows of a long sequence share one residue in so many unless told otherwise: what stands beside an edge is averaged
#: with what has that much context, and at most a third more is computed.
WINDOW_TO_OVERLAP: Final = 4
#: Tokens per batch on a CPU, where larger batches only leave the caches.
CPU_TOKEN_BUDGET: Final = 4096
#: Threads or processes of one task: no machine has more cores, and ten times as many would hold it for minutes.
MOST_AT_ONCE: Final = 4096
#: Tokens per batch above which no GPU measured gains any more throughput.
MAX_TOKEN_BUDGET: Final = 1 << 17


def absolute_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """The layers asked for as numbers from 0 (the embedding layer) to ``depth``, each once, in the order asked.

    Negative ones count from the end of a model of ``depth`` layers.

    Raises:
        UsageError: none is asked for, or one that the model does not have.
    """
    _check_any("layers", layers)
    absolute = [layer + depth + 1 if layer < 0 else layer for layer in layers]
    for asked, layer in zip(layers, absolute, strict=True):
        if not 0 <= layer <= depth:
            raise UsageError(f"--layers holds {asked}, but the model has layers 0 to {depth}")
    return tuple(dict.fromkeys(absolute))


def option(
    text: str,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    flag: str = "",
    metavar: str | None = None,
    names: str = "",
    least: int = 1,
    most: int | None = None,
) -> Any:
    """A field that is an option too, which must be given where it has no default.

    Args:
        text: what ``--help`` says.
        choices: the values that are legal.
        flag: what the option is called, unless by the field's name, several with blanks between them; "*" stands for
            bare arguments.
        metavar: what its value is called.
        names: where paths may also come from a list: the field that takes what the user calls them.
        least, most: the least and the greatest whole number that are legal.
    """
    facts = {"help": text, "choices": choices, "flag": flag, "metavar": metavar, "names": names}
    return field(default=default, metadata={**facts, "least": least, "most": most})


class Windows(NamedTuple):
    """How sequences longer than ``residues`` are embedded: in windows of so many, neighbours sharing ``overlap`` or
    more."""

    residues: int
    overlap: int


class Config:
    """Base of what programs are told; checks choices and ranges."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # every configuration is a dataclass
            value, choices = getattr(self, each.name), each.metadata.get("choices", ())
            if type(value) is int and value < (least := each.metadata.get("least", 1)):
                raise UsageError(f"--{each.name} is {value}, but must be at least {least}")
            if type(value) is int and (most := each.metadata.get("most")) and value > most:
                raise UsageError(f"--{each.name} is {value:,}, but must be at most {most:,}")
            if isinstance(value, tuple) and each.default not in ((), MISSING):
                _check_any(each.name, value)
            for word in (value if isinstance(value, tuple) else (value,)) if choices and value is not None else ():
                _check_choice(each.name, word, choices)


def _check_any(name: str, values: Sequence[object]) -> None:
    if not values:
        raise UsageError(f"--{name} is empty; name at least one")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"--{name} is '{value}', but must be one of {', '.join(allowed)}")


def _check_names(names: tuple[str, ...], things: int, what: str) -> None:
    if names and len(names) != things:
        raise UsageError(f"{len(names)} names for {things} {what}; give one for each")


@dataclass(frozen=True, kw_only=True)
class VectorConfig(Config):
    """What decides what a vector is. ``layers`` is what was asked for: ``absolute_layers`` numbers it for a model."""

    max_length: int = option("residues kept of a sequence", DEFAULT_MAX_LENGTH)
    long_sequences: str = option("what to do with a longer one", "truncate", choices=LONG_SEQUENCES)
    window_overlap: int | None = option("residues that windows share (default: a quarter of them)", None, least=0)
    layers: tuple[int, ...] = option("comma-separated; 0 is the embedding layer, -1 the last", (-1,))
    pooling: tuple[str, ...] = option("comma-separated", ("mean",), choices=POOLINGS)
    per_residue: bool = option("keep a vector for every residue too", False)
    precision: str = option("on a GPU; a CPU computes in fp32", "fp16", choices=tuple(PRECISIONS))
    embedding_dtype: str = option("type of the stored vectors", "float32", choices=EMBEDDING_DTYPES)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pooling", tuple(dict.fromkeys(self.pooling)))
        if self.window_overlap is None:
            return
        if self.long_sequences != "window":
            raise UsageError("--window_overlap says what windows share; give --long_sequences window too")
        if self.window_overlap > self.max_length // 2:
            raise UsageError(
                f"--window_overlap is {self.window_overlap}, but must be at most {self.max_length // 2}, "
                "half of --max_length"
            )

    @property
    def residue_limit(self) -> int | None:
        """Residues after which a sequence is cut, or None where it is embedded whole."""
        return residue_limit(self.max_length, self.long_sequences)

    @property
    def windows(self) -> Windows | None:
        """The windows that long sequences are embedded in, or None where they are not."""
        return windows_of(self.max_length, self.long_sequences, self.window_overlap)


#: What is asked for by who asks for nothing.
DEFAULT_VECTORS: Final = VectorConfig()


def precision_on(device: str, asked: str = "fp16") -> str:
    """The precision that a device of this type computes in: fp32 on a "cpu", whatever was asked for."""
    return "fp32" if device == "cpu" else asked


def residue_limit(max_length: int, long_sequences: str) -> int | None:
    """Residues after which a sequence is cut, or None where it is embedded whole."""
    return max_length if long_sequences == "truncate" else None


def windows_of(max_length: int, long_sequences: str, window_overlap: int | None) -> Windows | None:
    """The windows that long sequences are embedded in, or None where they are not."""
    if long_sequences != "window":
        return None
    return Windows(max_length, max_length // WINDOW_TO_OVERLAP if window_overlap is None else window_overlap)


@dataclass(frozen=True)
class FetchConfig(Config):
    """What FETCH_MODEL and DESCRIBE_MODEL do."""

    model: str = option("registry name, repository ORG/NAME of the hub, fair-esm .pt file or Hugging Face folder")
    model_revision: str | None = option("branch, tag or commit of the repository", None)
    outdir: Path = option("where model.json goes", Path("."))
    cache: Path | None = option("where downloaded models are kept by name (default: outdir)", None)


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(VectorConfig):
    """What is read as a sequence."""

    alphabet: str = option("protein: take what looks like nucleotides", "auto", choices=ALPHABETS)
    gaps: str = option("what becomes of - and inner . (unknown: read as X)", "remove", choices=GAPS)
    translate: str | None = option(
        "the input is DNA: predict its genes, or take six frames", None, choices=TRANSLATIONS
    )
    chunk: int = option("of six_frame: nucleotides of a chunk", DEFAULT_CHUNK, least=3)
    genetic_code: int = option("of six_frame: NCBI's number of the translation table", 1)
    min_contig: int = option("of --translate: nucleotides below which a contig is rejected", 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.genetic_code not in GENETIC_CODES:
            known = ", ".join(map(str, GENETIC_CODES))
            raise UsageError(f"--genetic_code is {self.genetic_code}, but must be one of NCBI's: {known}")
        if self.translate != "six_frame" and (self.chunk, self.genetic_code) != (DEFAULT_CHUNK, 1):
            raise UsageError("--chunk and --genetic_code are of --translate six_frame; give it too, or leave them out")
        if self.translate is None and self.min_contig != 1:
            raise UsageError("--min_contig is of --translate genes and six_frame; give one too, or leave it out")
        if self.translate is not None and self.alphabet == "protein":
            raise UsageError("--alphabet protein says that the input is no DNA; leave it or --translate out")


@dataclass(frozen=True)
class SplitConfig(SequenceConfig):
    """What SPLIT_FASTA does. ``names`` and ``reuse_names`` are the inputs and the earlier results as the user named
    them, where they lie elsewhere now; ``samples`` holds that of each input, if any."""

    inputs: tuple[Path, ...] = option("also compressed; - is standard input", flag="*", metavar="FASTA", names="names")
    model_json: Path = option("description written by fetch_model.py")
    outdir: Path = option("folder for the shards and the ledger", Path("."))
    shard_residues: int | None = option("residues per shard (default: about 20 minutes of the card)", None)
    card: str = option("what shards are computed on: a GPU as its driver calls it, or cpu", "")
    shards_at_least: int = option("number of GPUs that wait for work", 1)
    deduplicate: bool = option("embed identical sequences once each", True, flag="--no-dedup")
    reuse: tuple[Path, ...] = option("results to take vectors from", (), metavar="RESULTS", names="reuse_names")
    cpus: int | None = option("processes at most (default: one for each core)", None, most=MOST_AT_ONCE)
    strict: bool = option("a record that would be rejected ends the run", False)
    id_column: str | None = option("of tables: TSV, CSV or Parquet", None)
    sequence_column: str | None = option("of tables: TSV, CSV or Parquet", None)
    sample_sheet: Path | None = option("TSV or CSV with the columns sample and file, in the inputs' place", None)
    names: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    reuse_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.inputs and self.sample_sheet:
            raise UsageError("--sample_sheet names the input files; give no others beside it")
        if not self.inputs and not self.sample_sheet:
            raise UsageError("no input file given; name at least one FASTA file, or - for standard input")
        _check_names(self.names, len(self.inputs), "input files")
        _check_names(self.samples, len(self.inputs), "input files")
        _check_names(self.reuse_names, len(self.reuse), "results to reuse")
        if (self.id_column is None) != (self.sequence_column is None):
            raise UsageError("--id_column and --sequence_column say what a table's columns hold; give both")
        super().__post_init__()


@dataclass(frozen=True)
class CompileConfig(VectorConfig):
    """What COMPILE_KERNELS does."""

    model: str = option("registry name, fair-esm .pt file or Hugging Face folder")
    mark: str = option("file made beside the kernels once they are all there")


@dataclass(frozen=True)
class EmbedConfig(VectorConfig):
    """What EMBED_SHARD does."""

    shard: Path = option("a shard of split_fasta.py")
    model: Path = option("fair-esm .pt file or Hugging Face folder")
    model_json: Path = option("description written by fetch_model.py")
    outdir: Path = option("made whole at the end, or not at all")
    device: str = option("where to compute", "auto", choices=DEVICES)
    token_budget: int | None = option("tokens per batch (default: measured from free memory)", None)
    attempt: int = option("each further one halves the budget", 1)
    workers: int | None = option("loader processes (default: none for a short shard)", None, most=MOST_AT_ONCE)
    prefetch: int = option("batches each worker prepares ahead", 4)
    threads: int | None = option("CPU threads (default: all)", None, most=MOST_AT_ONCE)
    self_check: bool = option("do not measure parity before anything is computed", True, flag="--no-self-check")
