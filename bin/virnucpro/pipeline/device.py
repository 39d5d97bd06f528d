"""The device of a task, checked before anything is put on it: driver, card and precision fit this PyTorch, or not."""

from __future__ import annotations

import os
from typing import Final

import torch

from virnucpro.errors import TryAgainError, UsageError
from virnucpro.monitor.driver import Card, Driver, find_driver

#: Major version of CUDA -> the first driver that runs it (CUDA's release notes, table of compatible drivers).
FIRST_DRIVER: Final = {12: 525, 13: 580}
#: Major version of CUDA -> the lock that installs PyTorch for it.
LOCKS: Final = {12: "requirements-cu12.lock", 13: "requirements.lock"}
#: Precision -> least compute capability of the cards that multiply in it, and their family's name.
LEAST_CAPABILITY: Final = {"bf16": ((8, 0), "an Ampere"), "fp8": ((8, 9), "an Ada")}

#: What is computed in on Apple's GPU.
APPLE_PRECISIONS: Final = ("fp16", "fp32")


def select_device(asked: str, precision: str) -> torch.device:
    """The device of this task: ``auto`` takes an NVIDIA GPU where there is one, Apple's is taken as ``mps`` only.

    Raises:
        UsageError: there is a GPU, and this PyTorch, or ``precision``, cannot use it; no retry will cure that.
        TryAgainError: a GPU was promised and none is visible.
    """
    if asked == "cpu":
        return torch.device("cpu")
    if asked == "mps":
        return _apple_gpu(precision)
    driver = find_driver()
    if driver is not None and driver.gpus and not _hidden():
        _check_driver(driver)
        for card in _told_cards(driver):
            _check_card(card.name, card.capability, precision)
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        _check_card(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), precision)
        return device
    if asked == "auto" and (driver is None or not driver.gpus or _hidden()):
        return torch.device("cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "not set" if visible is None else f"'{visible}'"
    raise TryAgainError(
        f"no GPU is visible to this task (CUDA_VISIBLE_DEVICES {shown}); check the node, the container's GPU "
        "option and the driver, or run with --gpus 0"
    )


def _apple_gpu(precision: str) -> torch.device:
    if precision not in APPLE_PRECISIONS:
        raise UsageError(f"--precision {precision} is not for Apple's GPU: use {' or '.join(APPLE_PRECISIONS)}")
    if not torch.backends.mps.is_available():
        raise UsageError(
            f"--device mps: PyTorch {torch.__version__} sees no Apple GPU here; it takes a Mac with Apple silicon and "
            "no container: run with --device auto"
        )
    return torch.device("mps")


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") == ""


def _told_cards(driver: Driver) -> list[Card]:
    """The card of this task, where the driver alone can tell: by its UUID, or because all are alike.

    CUDA may count cards in another order than the driver, so that a number is no name.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    if visible.startswith("GPU-"):
        return [card for card in driver.cards if card.uuid.startswith(visible)]
    return list(driver.cards[:1]) if len({card.capability for card in driver.cards}) == 1 else []


def _check_driver(driver: Driver) -> None:
    built = torch.version.cuda
    if built is None:
        raise UsageError(
            f"PyTorch {torch.__version__} has no CUDA, but there is an NVIDIA GPU here; install {LOCKS[13]}, or run "
            "with --gpus 0"
        )
    needed = int(built.partition(".")[0])
    if driver.cuda[0] >= needed:
        return
    other = f", or install {LOCKS[12]} (make CUDA=12)" if needed > 12 and driver.cuda[0] >= 12 else ""
    raise UsageError(
        f"the NVIDIA driver {driver.version} runs CUDA {driver.cuda[0]}.{driver.cuda[1]} at most, but PyTorch "
        f"{torch.__version__} needs CUDA {built}; update the driver to {FIRST_DRIVER.get(needed, needed)} or later"
        f"{other}, or run with --gpus 0"
    )


def _check_card(name: str, capability: tuple[int, int], precision: str) -> None:
    if not any(_runs_on(architecture, capability) for architecture in _architectures()):
        raise UsageError(
            f"PyTorch {torch.__version__} has no code for the {name} (compute capability {_dotted(capability)}); "
            f"install {LOCKS[12]} (make CUDA=12), which has it from 7.0 on, or run with --gpus 0"
        )
    least, family = LEAST_CAPABILITY.get(precision, ((0, 0), ""))
    if capability < least:
        raise UsageError(f"--precision {precision} needs {family} GPU or a later one; the {name} is none: use fp16")


def _architectures() -> list[str]:
    """What this PyTorch has code for: as `torch.cuda.get_arch_list`, which is silent where CUDA sees no card."""
    flags: str | None = torch._C._cuda_getArchFlags()
    return flags.split() if flags else []


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``sm_80``, ``sm_90a`` or ``compute_80`` runs on a card of this compute capability."""
    kind, _, number = architecture.partition("_")
    digits = number.rstrip("af")
    built = (int(digits[:-1]), int(digits[-1]))
    if kind == "compute":
        return built <= capability
    if digits != number:
        return built == capability
    return built[0] == capability[0] and built[1] <= capability[1]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
