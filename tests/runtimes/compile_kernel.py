"""Compile a Triton kernel and a launcher without a GPU; prints what came out. test_docker.py runs it in the image."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def exponential(X_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(X_ptr + offsets, tl.exp(tl.load(X_ptr + offsets, mask=offsets < n)), mask=offsets < n)


def main() -> None:
    source = ASTSource(exponential, {"X_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"}, constexprs={(2,): 1024})
    for capability in (80, 90, 100):
        if triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]:
            print(f"sm_{capability}")
    Path("launcher.c").write_text("#include <Python.h>\n#include <cuda.h>\nint code(void) { return CUDA_SUCCESS; }\n")
    headers = [sysconfig.get_path("include"), Path(triton.__file__).parent / "backends" / "nvidia" / "include"]
    command = ["gcc", "-O3", "-shared", "-fPIC", *(f"-I{folder}" for folder in headers), "launcher.c"]
    subprocess.run([*command, "-o", "launcher.so"], check=True)
    if Path("launcher.so").stat().st_size:
        print("launcher")


if __name__ == "__main__":
    main()
