"""A task's device is checked before anything else, and what no retry cures is said once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from driver.driver import install_driver

from virnucpro.errors import TryAgainError, UsageError
from virnucpro.monitor.driver import Card, Driver
from virnucpro.pipeline import device as device_module
from virnucpro.pipeline.device import select_device

BIN = Path(__file__).parents[2] / "bin"
ASK = """
import sys
from virnucpro.errors import run_reporting_errors
from virnucpro.pipeline.device import select_device
sys.exit(run_reporting_errors("embed_shard.py", lambda: print(select_device(sys.argv[1], sys.argv[2]))))
"""
#: What this PyTorch is built for.
CUDA_MAJOR = int((torch.version.cuda or "0").partition(".")[0])


def ask(environment: dict[str, str], asked: str, precision: str = "fp16") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK, asked, precision],
        env={**os.environ, "PYTHONPATH": str(BIN), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available() or not CUDA_MAJOR, reason="needs a PyTorch for CUDA and no GPU")
@pytest.mark.parametrize("asked", ["cuda", "auto"])
@pytest.mark.parametrize(("version", "cuda"), [("550.54.14", (12, 4)), ("520.61.05", (11, 8))])
def test_a_driver_too_old_for_this_pytorch(asked: str, version: str, cuda: tuple[int, int], tmp_path: Path) -> None:
    done = ask(install_driver(tmp_path / "driver", version, cuda), asked)
    if cuda[0] >= CUDA_MAJOR:
        # The stand-in has no CUDA library: PyTorch sees no GPU, which another node may have.
        assert done.returncode == 75
        return
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"the NVIDIA driver {version} runs CUDA {cuda[0]}.{cuda[1]} at most" in line
    assert f"PyTorch {torch.__version__} needs CUDA {torch.version.cuda}" in line
    assert f"update the driver to {device_module.FIRST_DRIVER[CUDA_MAJOR]} or later" in line
    assert ("requirements-cu12.lock" in line) == (cuda[0] == 12)


@pytest.mark.skipif(torch.cuda.is_available() or not CUDA_MAJOR, reason="needs a PyTorch for CUDA and no GPU")
def test_auto_takes_the_cpu_only_where_no_gpu_is(tmp_path: Path) -> None:
    environment = install_driver(tmp_path / "driver", "580.65.06", (13, 0))
    seen = ask(environment, "auto")
    assert seen.returncode == 75, seen.stdout
    assert "no GPU is visible to this task (CUDA_VISIBLE_DEVICES not set)" in seen.stderr
    hidden = ask({**environment, "CUDA_VISIBLE_DEVICES": ""}, "auto")
    none = ask({**environment, "DRIVER_GPUS": "0"}, "auto")
    assert (hidden.stdout, none.stdout) == ("cpu\n", "cpu\n")
    assert ask(environment, "cpu").stdout == "cpu\n"


def test_a_promised_gpu_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "find_driver", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(TryAgainError, match=r"no GPU is visible to this task \(CUDA_VISIBLE_DEVICES '3'\)"):
        select_device("cuda", "fp16")
    assert select_device("auto", "fp16") == torch.device("cpu")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU here")
@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp16", f"--device mps: PyTorch {torch.__version__} sees no Apple GPU here"),
        ("bf16", "--precision bf16 is not for Apple's GPU: use fp16 or fp32"),
        ("fp8", "--precision fp8 is not for Apple's GPU: use fp16 or fp32"),
    ],
)
def test_apples_gpu_where_there_is_none(precision: str, message: str) -> None:
    done = ask({}, "mps", precision)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_apples_gpu_is_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "find_driver", lambda: None)
    assert select_device("mps", "fp32") == torch.device("mps")
    assert select_device("auto", "fp32") == torch.device("cpu")


#: Of PyTorch 2.11 for CUDA 13.0, and of 2.10 for CUDA 12.8.
ARCHITECTURES = {
    13: ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
    12: ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"],
}


@pytest.mark.parametrize(
    ("cuda", "capability", "precision", "message"),
    [
        (13, (7, 0), "fp16", r"no code for the Card \(compute capability 7.0\); install requirements-cu12.lock"),
        (12, (6, 1), "fp16", r"no code for the Card \(compute capability 6.1\)"),
        (12, (7, 0), "bf16", "--precision bf16 needs an Ampere GPU or a later one; the Card is none: use fp16"),
        (13, (7, 5), "bf16", "--precision bf16 needs an Ampere GPU"),
        (13, (8, 6), "fp8", "--precision fp8 needs an Ada GPU or a later one; the Card is none"),
        (12, (7, 0), "fp16", None),
        (13, (7, 5), "fp32", None),
        (13, (8, 0), "bf16", None),
        (13, (8, 9), "bf16", None),
        (13, (8, 9), "fp8", None),
        (13, (9, 0), "fp8", None),
        (13, (10, 3), "fp16", None),
        (13, (12, 1), "bf16", None),
    ],
)
def test_what_a_card_can_do(
    cuda: int, capability: tuple[int, int], precision: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "find_driver", lambda: Driver("580.65.06", (cuda, 0), 1))
    monkeypatch.setattr(torch.version, "cuda", f"{cuda}.0")
    monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: " ".join(ARCHITECTURES[cuda]))
    for name, value in {
        "is_available": True,
        "current_device": 0,
        "get_device_name": "Card",
        "get_device_capability": capability,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    if message is None:
        assert select_device("auto", precision) == torch.device("cuda", 0)
    else:
        with pytest.raises(UsageError, match=message):
            select_device("auto", precision)


@pytest.mark.skipif(torch.cuda.is_available() or not CUDA_MAJOR, reason="needs a PyTorch for CUDA and no GPU")
@pytest.mark.parametrize(
    ("visible", "capability", "precision", "message"),
    [
        (None, "7.0", "bf16", "no code for the Stand-in" if CUDA_MAJOR == 13 else "the Stand-in is none: use fp16"),
        (None, "6.1", "fp16", "no code for the Stand-in (compute capability 6.1)"),
        ("UUID", "7.5", "bf16", "--precision bf16 needs an Ampere GPU or a later one; the Stand-in is none: use fp16"),
        ("0", "8.6", "fp8", "--precision fp8 needs an Ada GPU or a later one; the Stand-in is none: use fp16"),
    ],
)
def test_the_driver_tells_what_its_card_cannot_do_before_cuda_is_asked(
    visible: str | None, capability: str, precision: str, message: str, tmp_path: Path
) -> None:
    environment = install_driver(tmp_path / "driver", "580.65.06", (13, 0), capability)
    named = environment["DRIVER_UUID"] if visible == "UUID" else visible
    done = ask(environment | ({"CUDA_VISIBLE_DEVICES": named} if named else {}), "cuda", precision)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line


def test_of_unlike_cards_only_a_uuid_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Card("GPU-11", "Old", (7, 5)), Card("GPU-22", "New", (9, 0))
    driver = Driver("580.65.06", (13, 0), 2, (old, new))
    for visible, told in {"GPU-22": [new], "GPU-1": [old], "1": [], "": [], "GPU-3": []}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device_module._told_cards(driver) == told, visible
