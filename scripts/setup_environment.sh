# Set-up for run_train.sh and run_tests.sh, which source it (bash 3.2 or newer). Defines setup_environment and use_active_environment.
#
# Environment variables:
#   PROTLIG_PYTHON       the Python that makes .venv (default: the first of python3, python3.13, 3.12, 3.11 that is 3.11 or newer)
#   PROTLIG_TORCH_INDEX  address of the package index for torch. By default pip's own configuration decides, which on Linux means a CUDA
#                        build (it also runs on a CPU, but is large). PyTorch's page "Get started" gives the address of each build:
#                        `cpu` for a small CPU build, `xpu` for Intel, `cu126` for a V100 (newer CUDA builds do not support it).
#   PROTLIG_INSTALLER    `pip` (default) or `uv`; uv ignores pip's configuration, so pip's find-links are passed to it
#
# .venv/.protlig_installed records what was installed; a second run installs nothing.

protlig_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

say() { printf 'protlig: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PROTLIG_PYTHON:+"$PROTLIG_PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
        if [ "$candidate" = "${PROTLIG_PYTHON:-}" ]; then
            die "PROTLIG_PYTHON='$PROTLIG_PYTHON' is not a Python of version 3.11 or newer; set it to one, or unset it"
        fi
    done
    die "found no Python of version 3.11 or newer (looked for python3, python3.13, python3.12, python3.11, python);" \
        "install one, or name it: PROTLIG_PYTHON=/path/to/python3 $0"
}

checksum() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum; elif command -v shasum >/dev/null 2>&1; then shasum -a 256; else cksum; fi
}

# What the installation depends on: the pins, the project file, the index of torch, and the folder (an editable install points to it).
wanted_state() {
    { cat "$protlig_root/constraints.txt" "$protlig_root/pyproject.toml" && printf '%s\n' "$protlig_root" "${PROTLIG_TORCH_INDEX:-}"; } | checksum
}

is_installed() { # stamp, state, "device extras"
    [ -f "$1" ] && [ "$(sed -n 1p "$1")" = "$2" ] && grep -qxF -- "$3" "$1"
}

make_venv() {
    local python
    python="$(find_python)" || exit 1
    say "making .venv with $("$python" --version 2>&1)"
    "$python" -m venv "$protlig_root/.venv" ||
        die "'$python -m venv' failed (see above); on Debian and Ubuntu it is the package python3-venv that is missing"
}

# pip (or uv) in .venv. Its output goes to stderr: stdout belongs to the program.
pip_install() {
    local quiet=()
    [ -t 2 ] || quiet=(--quiet)
    if [ "${PROTLIG_INSTALLER:-pip}" = uv ]; then
        local links
        links="$("$venv_python" -m pip config get global.find-links 2>/dev/null || true)"
        UV_FIND_LINKS="${UV_FIND_LINKS:-$links}" uv pip install --python "$venv_python" ${quiet[@]+"${quiet[@]}"} "$@" >&2
    else
        "$venv_python" -m pip install --disable-pip-version-check ${quiet[@]+"${quiet[@]}"} "$@" >&2
    fi
}

torch_build() { # such as 2.13.0+cpu; nothing if absent
    "$venv_python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true
}

# A V100 needs a build that newer indexes do not have.
advise_on_gpu() {
    local capability
    capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -n | sed -n 1p)" || true
    case "$capability" in
    7.0) say "this GPU has compute capability 7.0 (V100): only torch builds for CUDA 12.6 (cu126) support it; set PROTLIG_TORCH_INDEX to that index" ;;
    esac
}

install_torch() { # device
    local pin before source=(-c "$protlig_root/constraints.txt")
    pin="$(grep -E '^torch==' "$protlig_root/constraints.txt")"
    before="$(torch_build)"
    if [ -n "${PROTLIG_TORCH_INDEX:-}" ]; then
        source=(--index-url "$PROTLIG_TORCH_INDEX") # without the constraints: this index has other versions of the packages that torch needs
        # For pip any build of the same version satisfies the pin, so a build from another index is reinstalled by force.
        if [ -n "$before" ] && ! grep -qxF -- "torch from $PROTLIG_TORCH_INDEX" "$stamp" 2>/dev/null; then
            source+=(--force-reinstall)
        fi
    fi
    [ -n "$before" ] || say "installing $pin (20 s to a few minutes)"
    pip_install "${source[@]}" "$pin" ||
        die "installing $pin failed (see above); PROTLIG_TORCH_INDEX names another index, --no-install uses the active environment"
    case "$1/$(torch_build)" in
    cuda/*+cpu | xpu/*+cpu)
        say "the installed torch $(torch_build) is a CPU build and cannot use --$1; set PROTLIG_TORCH_INDEX to PyTorch's index for your device"
        ;;
    esac
    case "$1" in auto | cuda) advise_on_gpu ;; esac
}

# Make .venv ready for a device and a comma-separated list of extras, and put it first on PATH.
setup_environment() { # device, extras
    local venv="$protlig_root/.venv" state began=$SECONDS
    local stamp="$venv/.protlig_installed" venv_python="$venv/bin/python"
    state="$(wanted_state)"
    if ! is_installed "$stamp" "$state" "$1 $2" || [ ! -x "$venv_python" ]; then
        [ -x "$venv_python" ] && is_new_enough "$venv_python" || make_venv
        "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null ||
            die ".venv has no pip and 'ensurepip' failed; remove the folder .venv and run again"
        install_torch "$1"
        say "installing protlig_dd[$2] with the versions of constraints.txt"
        (cd "$protlig_root" && pip_install -c constraints.txt -e ".[$2]") || die "installing protlig_dd[$2] failed (see above); nothing was recorded, run again"
        if [ "$(sed -n 1p "$stamp" 2>/dev/null)" != "$state" ]; then
            printf '%s\n' "$state" "torch from ${PROTLIG_TORCH_INDEX:-}" >"$stamp"
        fi
        printf '%s\n' "$1 $2" >>"$stamp"
        say "set-up took $((SECONDS - began)) s; the next run installs nothing"
    fi
    export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
}

# --no-install: the environment that is active now, with this checkout's code.
use_active_environment() {
    command -v python >/dev/null 2>&1 || die "--no-install: found no 'python' in the active environment; activate one, or leave out --no-install"
    is_new_enough python || die "--no-install: the active 'python' is older than 3.11 ($(python --version 2>&1)); activate a newer one"
    export PYTHONPATH="$protlig_root${PYTHONPATH:+:$PYTHONPATH}"
}
