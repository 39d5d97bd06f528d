"""Processes forked from one that has computed. PyTorch's threads stay behind, and the first product waits for them."""

from __future__ import annotations

import os
from functools import cache

import torch

from virnucpro.errors import UsageError


@cache
def _first_process() -> int:
    """The process that computed first, in it and in all that are forked from it."""
    return os.getpid()


def refuse_forked() -> None:
    """Take note that this process computes.

    Raises:
        UsageError: it was forked from one that did so on several threads or on a GPU.
    """
    if _first_process() != os.getpid() and (torch.get_num_threads() > 1 or torch.cuda.is_initialized()):
        raise UsageError(
            "this process was forked from one that has embedded, whose threads it lacks; start processes with "
            "multiprocessing.get_context('spawn'), or give threads=1 before the fork on a CPU"
        )
