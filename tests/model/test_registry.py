from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from descriptions import describe

from virnucpro.errors import DataError, ExitCode, ModelError
from virnucpro.model.families import ESM_1B
from virnucpro.model.registry import MODELS, Esm2Config, hub_repository, look_up


def test_official_sizes() -> None:
    sizes = {name: (model.layers, model.embed_dim, model.heads, model.head_dim) for name, model in MODELS.items()}
    assert sizes == {
        "esm2_t6_8M_UR50D": (6, 320, 20, 16),
        "esm2_t12_35M_UR50D": (12, 480, 20, 24),
        "esm2_t30_150M_UR50D": (30, 640, 20, 32),
        "esm2_t33_650M_UR50D": (33, 1280, 20, 64),
        "esm2_t36_3B_UR50D": (36, 2560, 40, 64),
        "esm2_t48_15B_UR50D": (48, 5120, 40, 128),
        "esm1b_t33_650M_UR50S": (33, 1280, 20, 64),
        **{f"esm1v_t33_650M_UR90S_{member}": (33, 1280, 20, 64) for member in range(1, 6)},
    }
    assert all(name == model.name and model.ffn_dim == 4 * model.embed_dim for name, model in MODELS.items())
    assert hub_repository("esm2_t33_650M_UR50D") == "facebook/esm2_t33_650M_UR50D"


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("esm2_t33_650M", "esm2_t33_650M_UR50D"),
        ("esm2_t30_150m_ur50d", "esm2_t30_150M_UR50D"),
        ("esm2_t36_3B_UR50S", "esm2_t36_3B_UR50D"),
    ],
)
def test_unknown_name_offers_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(ModelError, match=f"did you mean {nearest}") as caught:
        look_up(asked)
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE


def test_name_far_from_all_lists_them() -> None:
    with pytest.raises(ModelError, match=r"known are esm2_t6_8M_UR50D, .*esm2_t48_15B_UR50D"):
        look_up("xyz")


@pytest.mark.parametrize(("layers", "dim", "heads"), [(0, 32, 2), (1, 33, 2), (1, 32, 0), (1, 34, 2), (1, 20, 20)])
def test_sizes_that_make_no_model_are_refused(layers: int, dim: int, heads: int) -> None:
    with pytest.raises(ModelError, match="not an ESM-2"):
        Esm2Config("odd", layers, dim, heads)


def test_sizes_from_a_description() -> None:
    described = describe(name="own", layers=2, embed_dim=32, heads=2)
    assert Esm2Config.from_description(described) == Esm2Config("own", 2, 32, 2)
    described = describe(name="own", layers=2, embed_dim=32, heads=2, family="ESM-1b")
    assert Esm2Config.from_description(described) == Esm2Config("own", 2, 32, 2, family=ESM_1B)
    with pytest.raises(
        DataError, match=r"model tiny: its description says family 'ESM-9', but must say one of ESM-2, "
    ):
        Esm2Config.from_description(describe(family="ESM-9"))


def test_registry_needs_no_torch() -> None:
    program = "import sys, virnucpro.model.registry; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2] / "bin"
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
