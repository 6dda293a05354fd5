#!/usr/bin/env bash
# What only a real GPU can prove, also on a machine without a network that has Python 3.12 and torch.
#
#   bash benchmarks/gpu.sh wheels        # here, with a network: the packages that such a machine lacks, into .whl/ (45 MB)
#   bash benchmarks/gpu.sh --output gpu.json [SECTION...] [--reference DIR]     # there
#   bash benchmarks/gpu.sh --device cpu --preset nano                           # a dry run, anywhere
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
if [[ "${1:-}" == wheels ]]; then
    platforms=()
    for glibc in 2_28 2_27 2_17 2_34; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    exec "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .whl pydantic==2.14.4 \
        pydantic_core==2.50.5 annotated-types typing-inspection soundfile cffi pycparser soxr torchfcpe local-attention \
        hyper-connections torch-einops-utils
fi
if [[ -d .whl && "$*" != *"--device cpu"* ]]; then
    packages="$(mktemp -d)"
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$packages" .whl/*.whl
    "$python" -c 'import av' 2>/dev/null || echo 'FFmpegError = OSError' >"$packages/av.py"   # 36 MB, for other than wav and flac
    export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
exec "$python" benchmarks/gpu.py "$@"
