"""What loading a checkpoint in parts takes of the host's memory: the model, and no second copy of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from esm import ESM2
from esm2_reference import ALPHABET, hugging_face_config, hugging_face_state
from safetensors.torch import save_file

LAYERS, DIM = 6, 1024
LOAD = """
import sys
from pathlib import Path
from virnucpro.model.weights import load_model

def resident(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024

before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is there now
model = load_model(Path(sys.argv[1]), "fp32", "cpu")
print(resident("VmHWM") - before)
"""


def save_in_parts(folder: Path, suffix: str) -> int:
    """A part for each layer, in the order of save_pretrained; returns the bytes of all."""
    model = ESM2(LAYERS, DIM, 16, alphabet=ALPHABET)
    state = hugging_face_state(model)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hugging_face_config(model)))
    stem, parts = ("model" if suffix == "safetensors" else "pytorch_model"), {}
    for key in state:
        place = key.partition("layer.")[2].partition(".")[0] if ".layer." in key else ""
        number = int(place) + 1 if place else LAYERS if "norm_after" in key else 1
        parts[key] = f"{stem}-{number:05d}-of-{LAYERS:05d}.{suffix}"
    for name in sorted(set(parts.values())):
        content = {key: value for key, value in state.items() if parts[key] == name}
        save_file(content, folder / name) if suffix == "safetensors" else torch.save(content, folder / name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": parts}))
    return sum((folder / name).stat().st_size for name in set(parts.values()))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_parts_are_let_go_as_they_are_read(suffix: str, tmp_path: Path) -> None:
    size = save_in_parts(tmp_path / "model", suffix)
    assert size > 280e6
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "model"], check=True, capture_output=True, text=True, timeout=300
    )
    # The model itself, of the same size, and the two parts that a layer may lie in; a second copy would make it 2.
    assert int(done.stdout) < 1.7 * size
