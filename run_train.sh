#!/usr/bin/env bash
# Installs what is missing, then trains. See `./run_train.sh --help`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/scripts/setup_environment.sh"

usage() {
    cat <<'HELP'
Usage: ./run_train.sh [OPTIONS] [CONFIG] [key.sub=value ...] [-- OPTIONS OF protlig train]

Installs what is missing into .venv in the folder of this script (once), then trains. Without CONFIG it runs dual_track/demo: a small
protein-ligand model of a synthetic world is trained, sampled, evaluated and reported, in a few minutes on a laptop.

  CONFIG             a YAML file, or the name of a packaged config such as dual_track/demo
  key.sub=value      any setting of the config, for instance train.lr=1e-4

  --auto             the best device available (default)
  --cpu --cuda --mps --xpu
                     this device; if it is not available, an error with advice
  --nproc N          N processes on this machine (one for each GPU)
  --dry-run          only validate the config and estimate its cost (protlig check)
  --no-install       use the active Python environment and install nothing (clusters)
  --help             show this text

Examples
  ./run_train.sh --cpu
  ./run_train.sh --cuda --nproc 4 sedd/uniref50_stable train.steps=1000
  ./run_train.sh --dry-run my_pairs.yaml
  ./run_train.sh --cpu dual_track/demo -- --resume=last-good

Environment variables: PROTLIG_PYTHON, PROTLIG_TORCH_INDEX (which build of torch; a V100 needs cu126) and PROTLIG_INSTALLER; see the
top of scripts/setup_environment.sh.
HELP
}

refuse() {
    say "$*"
    say "try: ./run_train.sh --help"
    exit 2
}

device=auto nproc=1 command=train install=yes config=""
overrides=() passed=()
while [ $# -gt 0 ]; do
    case "$1" in
    --auto | --cpu | --cuda | --mps | --xpu) device="${1#--}" ;;
    --nproc | --nproc=*)
        if [ "$1" = --nproc ]; then
            [ $# -ge 2 ] || refuse "--nproc: found nothing after it, expected a number of processes"
            shift
            nproc="$1"
        else
            nproc="${1#--nproc=}"
        fi
        case "$nproc" in '' | *[!0-9]* | 0*) refuse "--nproc: found '$nproc', expected a number of processes of at least 1" ;; esac
        ;;
    --dry-run) command=check ;;
    --no-install) install=no ;;
    -h | --help) usage && exit 0 ;;
    --)
        shift
        passed=("$@")
        break
        ;;
    -*) refuse "unknown option '$1'; options of 'protlig train' itself go after '--'" ;;
    *=*) overrides+=("$1") ;;
    *)
        [ -z "$config" ] || refuse "found two configs, '$config' and '$1'; expected one (settings are written key.sub=value)"
        config="$1"
        ;;
    esac
    shift
done

if [ "$install" = yes ]; then setup_environment "$device" demo; else use_active_environment; fi

# ${a[@]+"${a[@]}"}: an empty array is an error under `set -u` in the bash 3.2 of macOS.
arguments=("$command" "${config:-dual_track/demo}" --device "$device" ${overrides[@]+"${overrides[@]}"} ${passed[@]+"${passed[@]}"})
if [ "$nproc" -gt 1 ] && [ "$command" = train ]; then
    if [ -z "${OMP_NUM_THREADS:-}" ]; then
        threads=$(($(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) / nproc))
        export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
    fi
    arguments+=("train.devices=$nproc")
fi
if command -v protlig >/dev/null 2>&1; then exec protlig "${arguments[@]}"; fi
exec python -m protlig_dd.cli "${arguments[@]}"
