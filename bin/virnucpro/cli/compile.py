"""compile_kernels.py"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from virnucpro.cli.program import run_program
from virnucpro.config import CompileConfig
from virnucpro.cuda_start import capabilities
from virnucpro.process import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Compile a model's kernels for the GPUs of this machine, in parallel and without using these."""
    return run_program("compile_kernels.py", main.__doc__, CompileConfig, _run, argv)


def _run(config: CompileConfig) -> None:
    from virnucpro.model.known_shape import known_shape

    shape = known_shape(config.model)
    if shape is None:
        print("the sizes of this model are not known yet, so that EMBED_SHARD compiles its kernels")
        return
    # Asked beside the imports, which take longer; no thread is left when processes are forked.
    with ThreadPoolExecutor(1) as pool, importing():
        found = pool.submit(capabilities)
        from virnucpro.pipeline.compile_apart import compile_apart

    compile_apart(config, shape, found.result())
