#!/usr/bin/env bash
# One command from a fresh machine to a working rvc_core. Safe to run again: nothing changed means nothing done.
#
#   bash setup_env.sh             install
#   bash setup_env.sh demo        install if needed, then train and convert with the voices in the package
#   bash setup_env.sh test        install if needed, then run the tests (options go to pytest: --slow, -k NAME)
#   bash setup_env.sh check       report and change nothing; exit status 1 if something is missing
#
# Without a network: `bash setup_env.sh --offline BUNDLE [demo]` installs what `rvc weights bundle` packed elsewhere.
# The script inside an unpacked bundle installs that bundle.
#
# A bare machine gets .venv beside this file; Colab, Kaggle, Lightning.AI and an active conda environment are used as
# they are, and what they bring (torch first of all) is never replaced.
#
#   RVC_PYTHON=/path/to/python    the Python to build on
#   RVC_USE_CURRENT_ENV=1         install into the running environment instead of .venv
#   RVC_TORCH_INDEX=URL           where torch comes from; `default` means the index pip is configured with
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
extras_base="faiss,world,evaluate,espeak"
extras_test="$extras_base,onnx,test"
cpu_index="https://download.pytorch.org/whl/cpu"
bundle="" wheels=""   # --offline: the bundle, and the folder into which its wheels are unpacked
cuda_size="about 3 GB to download, 7 GB on the disk"
# What a platform's notebook front end and its own tools rely on: pip may add beside these, never change them.
protected="torch torchvision torchaudio torchcodec triton numpy scipy numba librosa matplotlib transformers
    huggingface_hub tensorboard protobuf setuptools ipywidgets widgetsnbextension jupyterlab_widgets ipython ipykernel
    traitlets tornado pyzmq notebook jupyter_client jupyter_core jupyter_server nbclient nbformat nbconvert"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
export JUPYTER_PREFER_ENV_PATH=1   # a kernel that the user registered elsewhere must not run our notebooks
unset PYTHONDONTWRITEBYTECODE      # with it, every process of the demo and the tests compiles torch again: 5 s each

say() { printf 'setup_env: %s\n' "$*"; }
die() { printf 'setup_env: %s\n' "$1" >&2; exit "${2:-1}"; }

# ---------------------------------------------------------------------------------------------- where to install

platform() {   # Kaggle sets Colab's marks too, so it comes first (as in rvc_core/system/platforms.py)
    if [[ -n "${KAGGLE_KERNEL_RUN_TYPE:-}" ]]; then echo kaggle
    elif [[ -n "${LIGHTNING_CLOUD_SPACE_ID:-}" ]]; then echo lightning
    elif [[ -n "${COLAB_RELEASE_TAG:-}" || -e /var/colab/hostname ]]; then echo colab
    elif [[ -n "${RVC_USE_CURRENT_ENV:-}" ]]; then echo "current environment"
    elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-base}" != base ]]; then echo "conda environment"
    else echo "bare machine"; fi
}

is_python() { "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, $2))" >/dev/null 2>&1; }

find_python() {   # the caller's own python3 first; a version newer than the tested ones only if there is no other
    local newest candidate
    local candidates=("$@" python3 python3.13 python3.12 python3.11 python)
    [[ -n "${RVC_PYTHON:-}" ]] && candidates=("$RVC_PYTHON")
    for newest in 14 99; do
        for candidate in "${candidates[@]}"; do
            is_python "$candidate" "$newest" && { command -v "$candidate"; return; }
        done
    done
    die "no Python 3.11 or newer found (looked at: ${candidates[*]}); install one, or say RVC_PYTHON=/path/to/python3.12"
}

locate() {   # sets $where and $python; on a bare machine $python may not exist yet
    where="$(platform)"
    case "$where" in
        "bare machine") python="$here/.venv/bin/python" ;;
        lightning)      python="$(find_python "${CONDA_PREFIX:-/nowhere}/bin/python" \
                            {/home/zeus,/system/conda}/miniconda3/envs/cloudspace/bin/python)" ;;
        "conda environment") python="$(find_python "$CONDA_PREFIX/bin/python")" ;;
        *)              python="$(find_python)" ;;
    esac
}

make_venv() {
    [[ "$where" != "bare machine" ]] && return
    is_python "$python" 99 && "$python" -m pip --version >/dev/null 2>&1 && return
    local base; base="$(find_python)"
    say "making .venv with $("$base" --version)"
    "$base" -m venv --clear "$here/.venv" >"$here/.venv.log" 2>&1 ||
        die "$base cannot make an environment (see .venv.log); on Debian and Ubuntu: apt install python3-venv"
    rm -f "$here/.venv.log"
}

# -------------------------------------------------------------------------------------------------- what is there

version_of() { "$python" -c 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))' "$1" 2>/dev/null; }

fingerprint() {   # one hash over all that an installation depends on, without importing any of it
    "$python" - "$here" "$1" <<'PY'
import hashlib, importlib.metadata, importlib.util, pathlib, sys
here, extras = pathlib.Path(sys.argv[1]), sys.argv[2]
digest = hashlib.sha256(f"{here} {extras} {sys.version} {sys.executable}".encode())
for name in ("pyproject.toml", "setup_env.sh"):
    digest.update((here / name).read_bytes())
for name in ("torch", "torchaudio", "numpy", "rvc_core"):
    try:
        digest.update(f"{name}={importlib.metadata.version(name)}".encode())
    except importlib.metadata.PackageNotFoundError:
        digest.update(f"no {name}".encode())
torchaudio = importlib.util.find_spec("torchaudio")   # a reinstalled torchaudio brings back what was set aside
if torchaudio and torchaudio.origin:
    names = sorted(path.name for path in (pathlib.Path(torchaudio.origin).parent / "lib").glob("*.so"))
    digest.update(" ".join(names).encode())
print(digest.hexdigest())
PY
}

stamp_file() { "$python" -c 'import sys; print(sys.prefix + "/.rvc_core_setup-" + sys.argv[1])' "$1"; }

is_current() {   # $1: base or test; an installation with the tests serves both
    [[ -x "$python" ]] || return 1
    local extras="extras_$1" file; file="$(stamp_file "$1")"
    [[ -f "$file" && "$(<"$file")" == "$(fingerprint "${!extras}")" ]]
}

has_gpu() { [[ "$(nvidia-smi -L 2>/dev/null)" == *GPU* ]]; }

is_old_gpu() {   # CUDA 13, which torch comes with, begins at compute capability 7.5; CUDA 12.6 at 5.0
    local capability; capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)"
    [[ -n "$capability" && "$(printf '%s\n' 7.5 "$capability" | sort -V | head -n 1)" != 7.5 ]]
}

obstacle() {   # why the torch that is here cannot use the GPU that is here, and what works
    has_gpu || return 0
    PYTHONPATH="$here" "$python" - 2>/dev/null <<'PY' || true
from rvc_core.errors import ResourceError
from rvc_core.system.devices import refuse_unbuilt
try:
    refuse_unbuilt()
except ResourceError as error:
    print(f"{error}; {error.hint}")
PY
}

answers() {   # does this index answer within four seconds?
    "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=4)' "$1/torch/" >/dev/null 2>&1
}

# ------------------------------------------------------------------------------------------------------ installing

# pip's own lines go to the log; a terminal sees the current one, a failure shows the last ones. Compiling all the
# modules of 130 packages takes a minute on two cores; Python compiles those that are used when they are first imported.
pip_install() {
    local log; log="$("$python" -c 'import sys; print(sys.prefix)')/rvc_core_setup.log"
    [[ -w "$(dirname "$log")" ]] || log="/tmp/rvc_core_setup.log"
    "$python" -m pip install ${wheels:+--no-index --find-links "$wheels"} --prefer-binary --no-compile \
        --progress-bar off "$@" 2>&1 | tee "$log" | show_last_line || {
        grep -v '^WARNING' "$log" | tail -n 12 >&2
        die "pip could not install the packages; the whole output is in $log (no network? no room on the disk?)"
    }
}

show_last_line() {
    if [[ -t 1 ]]; then awk '{ printf "\r\033[K  %s", substr($0, 1, 100); fflush() } END { printf "\r\033[K" }'
    else cat >/dev/null; fi
}

constraints() {   # lines for pip that freeze what the environment brings; in our own .venv that is torch alone
    local names="$protected"
    [[ "$where" == "bare machine" ]] && names="torch torchaudio"
    "$python" - $names <<'PY'
import importlib.metadata as metadata, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print("\n".join(f"{name}=={version}" for name, version in found.items()))
if "torch" in found and "torchaudio" not in found:
    major, minor = map(int, found["torch"].split(".")[:2])
    if (major, minor) < (2, 11):   # up to 2.10 each torchaudio belongs to one torch; 2.11 works with all later ones
        print(f"torchaudio=={major}.{minor}.*")
PY
}

brings_cuda() {   # would installing "$1" from pip's own index pull CUDA packages? Reads metadata only.
    [[ "$("$python" -m pip install --quiet --dry-run --report - "$1" 2>/dev/null)" == *'"name": "nvidia-'* ]]
}

choose_torch() {   # sets $torch to what pip is asked for, or installs it when it comes from an index of its own
    local index="${RVC_TORCH_INDEX:-}" version refused
    torch="torch>=2.8"
    if version="$(version_of torch)"; then
        [[ "$(printf '%s\n' 2.8 "$version" | sort -V | head -n 1)" == 2.8 ]] ||
            die "torch $version is here and 2.8 or newer is needed; it is yours, so upgrade it yourself or use another environment"
        say "keeping torch $version"
        refused="$(obstacle)"
        [[ -z "$refused" ]] || die "$refused"
        return
    fi
    if [[ -n "$wheels" ]]; then
        [[ -n "$(compgen -G "$wheels/torch-*.whl")" ]] ||
            die "torch is not here and the bundle leaves it out: use a machine that brings torch, or make the bundle with --with-torch"
        return
    fi
    if [[ -z "$index" ]] && has_gpu && is_old_gpu; then
        index="${cpu_index%cpu}cu126"
        say "the GPU is older than those that today's torch is built for"
    elif [[ -z "$index" ]] && has_gpu; then
        say "GPU found: installing torch with CUDA, $cuda_size"
        return
    fi
    [[ -z "$index" ]] && answers "$cpu_index" && index="$cpu_index"
    if [[ -n "$index" && "$index" != default ]]; then
        say "installing torch from $index"
        pip_install --index-url "$index" "torch>=2.8" "torchaudio>=2.8"
        return
    fi
    torch="torch>=2.8,<2.14"
    if brings_cuda "$torch"; then
        [[ "$index" == default ]] || die "no GPU here, PyTorch's CPU index does not answer, and pip's own index offers torch with CUDA ($cuda_size): set RVC_TORCH_INDEX to an index with CPU builds, or to \`default\` to take it all the same"
        say "installing torch with CUDA, $cuda_size"
    fi
}

repair_torchaudio() {   # a torchaudio built for CUDA does not load beside a CPU torch; its Python part is all we need
    "$python" -c 'import torchaudio' >/dev/null 2>&1 && return
    "$python" -c 'import torch' >/dev/null 2>&1 || die "torch itself does not import: $("$python" -c 'import torch' 2>&1 | tail -n 1)"
    local folder file
    folder="$("$python" -c 'import importlib.util as u, os; s = u.find_spec("torchaudio"); print(os.path.dirname(s.origin) if s else "")')"
    [[ -n "$folder" ]] || die "torchaudio is not installed; run: bash setup_env.sh"
    for file in "$folder"/lib/*.so; do [[ -e "$file" ]] && mv "$file" "$file.disabled"; done
    if "$python" -c 'import torchaudio' >/dev/null 2>&1; then
        say "torchaudio's compiled part does not load beside this torch: set aside as torchaudio/lib/*.so.disabled"
    else
        for file in "$folder"/lib/*.so.disabled; do [[ -e "$file" ]] && mv "$file" "${file%.disabled}"; done
        die "torchaudio does not import: $("$python" -c 'import torchaudio' 2>&1 | tail -n 1)"
    fi
}

open_bundle() {   # verifies the bundle; copies its weights to where they are looked for, its wheels to $wheels
    local code="$here"
    [[ -d "$here/rvc_core" ]] || code="$(compgen -G "$bundle/wheels/rvc_core-*.whl")" ||
        die "rvc_core is neither beside this script nor in the folder $bundle: unpack the bundle, or use a clone"
    wheels="$(mktemp -d)"
    trap 'rm -rf "$wheels"' EXIT   # `exec` forgets this, so `install` does it too
    PYTHONPATH="$code" "$python" - "$bundle" "$wheels" <<'PY' || exit 1
import pathlib, sys
from rvc_core.assets.archive import unpack
from rvc_core.errors import RVCError
try:
    placed = unpack(*map(pathlib.Path, sys.argv[1:]))
except RVCError as error:
    sys.exit(f"setup_env: {error}; {error.hint}")
print(f"setup_env: the bundle is whole; weights: {', '.join(map(str, placed)) or 'none'}")
PY
}

update() {   # what a notebook fetched, to the newest commit of its branch; $@: how this script was called
    local git=(timeout 60 git -C "$here") said
    [[ "$(basename "$(dirname "$here")")" == rvc_core_project && -d "$here/.git" && -z "${RVC_UPDATED:-}" ]] || return 0
    if ! git -C "$here" diff --quiet HEAD || [[ -n "$(git -C "$here" log --oneline "@{upstream}..HEAD")" ]]; then
        say "$here has changes of your own: it is used as it is. To get the newest version, move that folder away"
        return
    fi
    said="$(GIT_TERMINAL_PROMPT=0 "${git[@]}" fetch --quiet --depth 1 2>&1)" || {
        say "the newest version cannot be fetched (${said##*$'\n'}): $here is used as it is"
        return
    }
    [[ "$("${git[@]}" rev-parse HEAD)" == "$("${git[@]}" rev-parse "@{upstream}")" ]] && return
    "${git[@]}" reset --quiet --hard "@{upstream}" || die "$here cannot be updated: move that folder away"
    say "updated to $("${git[@]}" log -1 --format='%h of %as: %s')"
    RVC_UPDATED=1 exec bash "$here/setup_env.sh" "$@"
}

install() {   # $1: base or test
    local started=$SECONDS extras="extras_$1" limits which; extras="${!extras}"
    local ours
    locate
    [[ -z "$bundle" ]] && is_current "$1" && return
    say "$where, $(uname -m)"
    make_venv
    [[ -z "$bundle" ]] || open_bundle
    is_current "$1" && { rm -rf "$wheels"; return; }
    choose_torch
    limits="$(mktemp)"
    constraints >"$limits"
    version_of faiss-gpu >/dev/null && extras="${extras#faiss,}"   # both provide the module faiss
    ours=(--editable "$here[$extras]")
    [[ -z "$bundle" || -d "$here/rvc_core" ]] || ours=("rvc_core[$extras]")   # from the bundle's wheel
    say "installing the packages (a minute or two)"
    pip_install --constraint "$limits" "$torch" "${ours[@]}"
    # These name dependencies that no longer install or are not used; what they need came with the extra `evaluate`.
    { version_of Resemblyzer && version_of speechmos; } >/dev/null ||
        pip_install --no-deps "Resemblyzer>=0.1.4" "speechmos>=0.0.1.1"
    rm -rf "$limits" "$wheels"
    repair_torchaudio
    for which in base test; do
        extras="extras_$which"
        if [[ "$which" == base || "$1" == test ]]; then fingerprint "${!extras}" >"$(stamp_file "$which")"; fi
    done
    say "ready in $((SECONDS - started)) s: torch $(version_of torch), Python $("$python" -c 'import platform; print(platform.python_version())')"
}

# ----------------------------------------------------------------------------------------------------- sub-commands

check() {
    export PYTHONDONTWRITEBYTECODE=1
    locate
    say "$where, $(uname -m), GPU: $(has_gpu && nvidia-smi -L | head -n 1 || echo none)"
    [[ -x "$python" ]] || die "not installed yet (would use $(find_python)); run: bash setup_env.sh"
    "$python" -m rvc_core.cli check || die "something is missing; run: bash setup_env.sh"
    is_current base || die "the set-up is out of date; run: bash setup_env.sh"
    say "the set-up is up to date"
}

main() {
    if [[ "${1:-}" == --offline ]]; then
        [[ -e "${2:-}" ]] || die "--offline needs a bundle: the archive, or the folder where it was unpacked" 2
        bundle="$(realpath "$2")"
        shift 2
    fi
    [[ -n "$bundle" || -d "$here/rvc_core" || ! -f "$here/manifest.json" ]] || bundle="$here"
    local command="${1:-install}"
    [[ $# -gt 0 ]] && shift
    case "$command" in
        install)
            [[ -n "$bundle" ]] || update "$@"
            install base
            say "up to date; the command line is $(dirname "$python")/rvc" ;;
        demo)    install base; exec "$python" -m rvc_core.cli demo "$@" ;;
        test)    install test; cd "$here"; exec "$python" -m pytest -n 2 --dist worksteal "$@" ;;
        check)   check ;;
        -h|--help|help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
        *)       die "unknown sub-command '$command'; one of: demo, test, check, or none to install" 2 ;;
    esac
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main "$@"; fi
