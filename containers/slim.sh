#!/usr/bin/env bash
# Takes out of a virtual environment what no task of the pipeline opens, and fails if a library then lacks another.
#   slim.sh VENV
# Run while an image is built, before its packages are copied into the last stage; needs binutils.
set -euo pipefail
cd "$1"/lib/python3*/site-packages

missing_libraries() {
    # ldd fails where a file is no library, which is no fault here.
    { find . -name '*.so*' -type f -exec ldd {} + 2>/dev/null || true; } | awk '/not found/ { print $1 }' | sort -u
}
before=$(missing_libraries)

# MultiQC's plots to PNG, its calls to language models, and one of the two builds of Polars (it prefers the other).
rm -rf kaleido* boto3* botocore* s3transfer* jmespath* tiktoken* _polars_runtime_32* polars_runtime_32*
rm -rf plotly/labextension multiqc/templates/{disco,gathered,geo,sections,simple}
# Arrow's network service and S3; tests and headers.
rm -rf pyarrow/{tests,include,src} pyarrow/libarrow_{flight,python_flight,s3}.* pyarrow/_{flight,s3fs}.*
rm -rf numpy/*/tests numpy/*/*/tests numpy/{f2py,distutils} networkx/*/tests networkx/*/*/tests
# CUDA's static archives, its second run-time compiler and multi-GPU solver; PyTorch's and Triton's own test tools.
rm -rf torch/{bin/protoc*,bin/test*,include,share} triton/{FileCheck,instrumentation}
rm -rf nvidia/*/include nvidia/*/lib/lib{nvrtc*.alt,cusolverMg,cufftw,nvblas}.so*
find . -name '*.a' -delete
for library in _polars_runtime_compat/*.so triton/_C/libtriton.so pyarrow/libarrow.so.*; do
    if [[ -e $library ]]; then strip --strip-unneeded "$library"; fi
done
find . -name __pycache__ -empty -delete

lost=$(comm -13 <(echo "$before") <(missing_libraries))
if [[ $lost ]]; then
    echo "slim.sh: these libraries are gone, but others need them:" $lost >&2
    exit 1
fi
