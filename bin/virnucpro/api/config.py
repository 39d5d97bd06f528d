"""What the command without Nextflow is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from virnucpro.config import DEFAULT_MODEL, PROVENANCES, SplitConfig, option
from virnucpro.errors import UsageError


@dataclass(frozen=True)
class RunConfig(SplitConfig):
    """What ``virnucpro embed`` does: a whole run on this machine, under the pipeline's names for its parameters."""

    model_json: Path = Path("model.json")
    outdir: Path = option("folder for the results, made whole at the end", Path("results"), flag="-o --outdir")
    model: str = option("official name, repository ORG/NAME of the hub, or path of a checkpoint", DEFAULT_MODEL)
    model_revision: str | None = option("branch, tag or commit of the repository", None)
    model_cache: Path | None = option("where downloaded models are kept", None)
    gpus: int | None = option("GPUs to use, 0 for the CPU (default: those present)", None, least=0)
    token_budget: int | None = option("tokens per batch (default: measured from free memory)", None)
    neighbours: int | None = option("so many exact nearest neighbours of each record (default: none)", None)
    reference: Path | None = option("results in which neighbours are looked for (default: the run itself)", None)
    self_check: bool = option("do not measure parity before anything is computed", True, flag="--no-self-check")
    provenance: str = option("what the run's record tells: files by their names", "names", choices=PROVENANCES)
    report: bool = option("draw no page of the run", True, flag="--no-report")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference is not None and self.neighbours is None:
            raise UsageError("--reference says where to look for --neighbours; give their number too")
