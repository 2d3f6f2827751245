#!/usr/bin/env bash
# Installs what is missing, then runs all checks. See `./run_tests.sh --help`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/scripts/setup_environment.sh"

usage() {
    cat <<'HELP'
Usage: ./run_tests.sh [--all] [--fast] [--no-install] [-- PYTEST ARGUMENTS]

Installs what is missing into .venv next to this script (once), then runs ruff (check and format), mypy, and the tests with coverage.

  --all          the slow tests too, then all that are not slow against the newest allowed version of each dependency
                 (scripts/newest.sh, in .venv-newest; not with --no-install or arguments); run before a change is finished
  --fast         only the tests that are not slow, without ruff, mypy or coverage; stop at the first failure
  --no-install   use the active Python environment; install nothing
  -- ARGUMENTS   passed to pytest; coverage is then off, because its minimum applies to the whole suite
  --help         print this text

Examples
  ./run_tests.sh
  ./run_tests.sh --fast -- tests/test_config.py -k unknown

PROTLIG_TEST_JOBS sets the number of processes (default 2), PROTLIG_SHARED the folder of real data for tests marked `data`.
HELP
}

coverage_floor=95
selection=(-m "not slow") checks=yes install=yes newest=no
pytest_arguments=() coverage=(--cov=protlig_dd --cov-report=term:skip-covered "--cov-fail-under=$coverage_floor")
while [ $# -gt 0 ]; do
    case "$1" in
    --all) selection=() newest=yes ;;
    --fast) checks=no coverage=() pytest_arguments=(-x) ;;
    --no-install) install=no ;;
    -h | --help) usage && exit 0 ;;
    --)
        shift
        [ $# -eq 0 ] || coverage=() newest=no
        pytest_arguments+=("$@")
        break
        ;;
    *)
        say "unknown option '$1'; arguments of pytest go after '--'"
        say "try: ./run_tests.sh --help"
        exit 2
        ;;
    esac
    shift
done

if [ "$install" = yes ]; then setup_environment auto demo,deepspeed,dev,docs,hf,structure; else use_active_environment; fi
cd "$protlig_root"

if [ "$checks" = yes ]; then
    say "ruff check"
    python -m ruff check .
    say "ruff format --check"
    python -m ruff format --check .
    say "mypy"
    python -m mypy protlig_dd
fi

say "pytest"
# One thread per process: the workers share the cores, and a fixed order of sums gives the same digits everywhere.
export OMP_NUM_THREADS=1
python -m pytest -n "${PROTLIG_TEST_JOBS:-2}" --dist loadgroup -q ${selection[@]+"${selection[@]}"} ${coverage[@]+"${coverage[@]}"} \
    ${pytest_arguments[@]+"${pytest_arguments[@]}"}

[ "$newest$install" != yesyes ] || exec scripts/newest.sh
