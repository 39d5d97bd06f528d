"""What a file or folder is that holds no weights we read, told from its first bytes and its name."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Final

from virnucpro.errors import ModelError

_HEAD: Final = 512
_CONVERT: Final = "load it in the framework that wrote it, and save it with save_pretrained of transformers in PyTorch"
_UNPACK: Final = "unpack it and give the path of the model in it"
_AGAIN: Final = "download the model again, from the address of the file itself"
#: First bytes -> what the file is and what to do.
_MAGIC: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull where it was cloned"),
    (b"GGUF", "a GGUF file of quantised weights; give the PyTorch weights it was made from"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as Keras and TensorFlow write; {_CONVERT}"),
    (b"\x1f\x8b", f"compressed with gzip; {_UNPACK}"),
    (b"BZh", f"compressed with bzip2; {_UNPACK}"),
    (b"\xfd7zXZ", f"compressed with xz; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (b"Rar!", f"a RAR archive; {_UNPACK}"),
    (b"\x93NUMPY", "a NumPy array, not a model; give an ESM-2 checkpoint"),
    (b"PAR1", "a Parquet file, not a model; give an ESM-2 checkpoint"),
    (b">", "a FASTA file, not a model; sequences go to --input, --model takes an ESM-2 checkpoint"),
)
#: Name -> what a file is and what to do, where the bytes do not say; in a folder it says what the folder is.
_NAMES: Final = (
    (re.compile(r"\.onnx$"), "an ONNX graph; give the PyTorch weights it was exported from"),
    (re.compile(r"\.msgpack$"), f"weights of Flax; {_CONVERT}"),
    (re.compile(r"\.tflite$|^saved_model\.pb$"), f"a TensorFlow graph; {_CONVERT}"),
    (re.compile(r"\.h5$|\.keras$"), f"weights of Keras or TensorFlow; {_CONVERT}"),
    (
        re.compile(r"^mp_rank_\d+_model_states\.pt$|zero_pp_rank_.*\.pt$|_optim_states\.pt$"),
        "part of a DeepSpeed checkpoint, whose weights are spread over its processes; gather them first, in the folder "
        "that holds zero_to_fp32.py: python zero_to_fp32.py . gathered --safe_serialization",
    ),
    (
        re.compile(r"\.distcp$|^\.metadata$"),
        "part of a distributed checkpoint of torch (DCP); gather it first: "
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    ),
    (re.compile(r"-contact-regression\.pt$"), "the contact head alone; give the .pt file without -contact-regression"),
)
#: The same for files that tell nothing of their folder.
_FILE_NAMES: Final = (
    (
        re.compile(r"^(optimizer|scheduler|scaler|training_args|rng_state.*)\.(pt|pth|bin)$"),
        "the state of a training, not its weights; give the folder it lies in",
    ),
    (re.compile(r"\.json$"), "settings, not weights; give the folder it lies in, or the file of the weights"),
)
_SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".gguf")
#: What zipfile raises for archives that are damaged, encrypted or of a kind that it does not read.
NO_ARCHIVE: Final = (zipfile.BadZipFile, RuntimeError, ValueError, LookupError, EOFError, struct.error)


def refuse_other_formats(path: Path) -> None:
    """ModelError, which says what it is and what to do, where a file is of another kind than weights of PyTorch."""
    found = content_format(path) or _by_name(path.name, _NAMES + _FILE_NAMES)
    if not found and _is_json(path):
        found = f"JSON text, perhaps a server's message, not weights; {_AGAIN}"
    if found:
        raise ModelError(f"{path}: {found}")


def folder_format(folder: Path) -> str:
    """What a folder without weights that we read is, and what to do."""
    files = sorted(str(each.relative_to(folder)) for depth in ("*", "*/*") for each in folder.glob(depth))
    if not files:
        return "an empty folder; give a folder that holds the weights"
    for children, what in (
        ("models--*", "a hub cache"),
        ("hub/models--*", "the home of a hub cache"),
        ("checkpoint-*", "a folder of several checkpoints"),
    ):
        found = sorted(str(each.relative_to(folder)) for each in folder.glob(children) if each.is_dir())
        if found:
            return f"{what}; give one of those in it: {', '.join(found[-8:])}"
    for name in files:
        if known := _by_name(Path(name).name, _NAMES):
            return f"{name} in it is {known}"
    weights = [name for name in files if Path(name).suffix in _SUFFIXES]
    for name in weights:
        if (folder / name).is_file() and (known := content_format(folder / name)):
            return f"{name} in it is {known}"
    nothing = "no model.safetensors or pytorch_model.bin in it"
    if weights:
        return f"{nothing}; give the path of the file that holds them: {', '.join(weights[:8])}"
    return f"{nothing}; give a folder that holds the weights"


def content_format(path: Path) -> str | None:
    """What the bytes of a file say that it is, and what to do; None where it may be weights of PyTorch, or JSON."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        return f"an empty file; {_AGAIN}"
    if is_safetensors(path):
        return None
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<error")):
        return f"a web page or a server's message, saved under the name of a model; {_AGAIN}"
    if head[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    if head.startswith(b"PK") and is_zip(path):
        return _zip_format(path)
    return None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and the object."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def is_zip(path: Path) -> bool:
    """Whether a file ends as a zip archive does, which is not to say that it is whole."""
    try:
        return zipfile.is_zipfile(path)
    except NO_ARCHIVE:
        return False


def is_torch_script(archive: zipfile.ZipFile) -> bool:
    """Whether an archive holds a compiled program of TorchScript; torch would run it."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def is_torch_archive(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is what ``torch.save`` writes."""
    return any(re.fullmatch(r"([^/]+/)?data\.pkl", name) for name in archive.namelist())


def _is_json(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_HEAD).lstrip().startswith((b"{", b"["))


def _by_name(name: str, table: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    return next((found for pattern, found in table if pattern.search(name)), None)


def _zip_format(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            script, saved = is_torch_script(archive), is_torch_archive(archive)
    except NO_ARCHIVE:
        return None
    if script:
        return (
            "a TorchScript program, which is never run; save the weights of the model it was made from: "
            "torch.save(model.state_dict(), 'weights.pt')"
        )
    if saved:
        return None
    if any(name.endswith(".weights.h5") for name in names):
        return f"a Keras archive; {_CONVERT}"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays, not a model; give an ESM-2 checkpoint"
    return f"a zip archive; {_UNPACK}"
