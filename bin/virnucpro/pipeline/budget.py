"""The one place where memory is measured and turned into tokens per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virnucpro.config import CPU_TOKEN_BUDGET, MAX_TOKEN_BUDGET, PRECISIONS
from virnucpro.errors import TryAgainError

if TYPE_CHECKING:
    import torch

    from virnucpro.model.registry import Esm2Config
    from virnucpro.pipeline.output_plan import OutputPlan

#: Values of D per token alive at the peak of a layer: x, h, attention output, qkv (3), fc1 output (4), one spare.
ACTIVATIONS_PER_TOKEN: Final = 11
#: fp32 values of D per token in the final norm and the pooling.
POOLING_VALUES_PER_TOKEN: Final = 2
#: Batches whose residues are on the device at once: memory is taken when a batch is queued, and two are queued behind
#: the one whose copy to the host is awaited.
RESIDUES_IN_FLIGHT: Final = 3
#: Bytes of a residue's value, whatever the precision.
RESIDUE_VALUE_BYTES: Final = 2
#: Bytes of a batch's residues at most: several batches of them wait on the host, in pinned memory, for the disk.
RESIDUE_BATCH_BYTES: Final = 256 << 20
#: Free memory left alone: fragmentation, cuBLAS work space, kernels.
SAFETY: Final = 0.80
WORKSPACE_BYTES: Final = 512 << 20
SMALLEST_BUDGET: Final = 1026
#: Tokens in one tile of a matrix product, ours and cuBLAS's.
TILE_TOKENS: Final = 128


def bytes_per_token(config: Esm2Config, precision: str) -> int:
    """Peak bytes of activations per token of one batch."""
    per_layer = ACTIVATIONS_PER_TOKEN * PRECISIONS[precision].value_bytes + 4 * POOLING_VALUES_PER_TOKEN
    return per_layer * config.embed_dim


def kept_bytes_per_token(config: Esm2Config, precision: str, plan: OutputPlan) -> int:
    """Bytes per token of what stays on the device beside the activations: inner layers asked for, and residues.

    The last layer's state is not among them: ``bytes_per_token`` counts it with the pooling.
    """
    inner = len({layer for layer in plan.layers if layer < config.layers})
    residues = RESIDUES_IN_FLIGHT * RESIDUE_VALUE_BYTES * len(plan.residue_columns())
    return (inner * PRECISIONS[precision].value_bytes + residues) * config.embed_dim


def weight_bytes(config: Esm2Config, precision: str) -> int:
    """Bytes of the encoder's weights: 12 D^2 values per layer dominate, biases and norms are 13 D."""
    return config.layers * (PRECISIONS[precision].weight_bytes * config.embed_dim**2 + 13 * config.embed_dim * 4)


def tokens_that_fit(config: Esm2Config, precision: str, free_bytes: int, plan: OutputPlan | None = None) -> int:
    """Tokens per batch for ``free_bytes`` of free memory before the weights are there.

    ``plan`` says what is kept of each token; None keeps the last layer, and no residues.

    Raises:
        TryAgainError: not even one sequence of 1,024 tokens would fit beside the weights.
    """
    usable = int((free_bytes - weight_bytes(config, precision)) * SAFETY) - WORKSPACE_BYTES
    kept = 0 if plan is None else kept_bytes_per_token(config, precision, plan)
    tokens = usable // (bytes_per_token(config, precision) + kept)
    if tokens < SMALLEST_BUDGET:
        raise TryAgainError(
            f"{config.name} in {precision} does not fit into {free_bytes / 2**30:.1f} GiB of free GPU memory; "
            "free the GPU, keep fewer --layers, or use a smaller model"
        )
    return min(tokens, MAX_TOKEN_BUDGET)


def whole_waves(tokens: int, multiprocessors: int) -> int:
    """Tokens, at most as many, whose tiles fill all multiprocessors the last time too, whatever the layer's width.

    A product of T tokens has a whole number of tiles for every ``TILE_TOKENS``; with these a multiple of the
    multiprocessors, none idles at the end of a product. Fewer tokens than that stay as they are.
    """
    wave = TILE_TOKENS * multiprocessors
    return tokens // wave * wave or tokens


def tokens_of_residues(config: Esm2Config, plan: OutputPlan | None) -> int:
    """Tokens whose residues the host holds of one batch: any number where none are kept."""
    columns = 0 if plan is None else len(plan.residue_columns())
    return RESIDUE_BATCH_BYTES // (RESIDUE_VALUE_BYTES * config.embed_dim * columns) if columns else MAX_TOKEN_BUDGET


def token_budget(
    config: Esm2Config,
    precision: str,
    device: torch.device,
    asked: int | None,
    attempt: int,
    plan: OutputPlan | None = None,
) -> int:
    """Tokens per batch: what was asked for or what fits, halved with every further attempt."""
    if asked is not None:
        budget = asked
    elif device.type != "cuda":
        budget = min(CPU_TOKEN_BUDGET, tokens_of_residues(config, plan))
    else:
        import torch

        free_bytes, _ = torch.cuda.mem_get_info(device)
        fitting = min(tokens_that_fit(config, precision, free_bytes, plan), tokens_of_residues(config, plan))
        budget = whole_waves(fitting, torch.cuda.get_device_properties(device).multi_processor_count)
    return max(1, budget >> (attempt - 1))
