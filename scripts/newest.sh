#!/usr/bin/env bash
# Runs the tests against the newest allowed version of each dependency. See `scripts/newest.sh --help`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_environment.sh"

usage() {
    cat <<'HELP'
Usage: scripts/newest.sh [--list] [PYTEST ARGUMENTS]

Installs the newest version of each dependency that pyproject.toml allows into .venv-newest, prints the date and the versions that differ from
constraints.txt, and runs the tests that are not slow. `./run_tests.sh --all` ends with it.

  --list    print the date and the versions, and run nothing
  --help    print this text

PROTLIG_PYTHON, PROTLIG_TORCH_INDEX and PROTLIG_TEST_JOBS are those of ./run_tests.sh.
HELP
}

run=yes
case "${1:-}" in
-h | --help) usage && exit 0 ;;
--list) run=no && shift ;;
esac

venv="$protlig_root/.venv-newest"
venv_python="$venv/bin/python"
python="$(find_python)" || exit 1
[ -x "$venv_python" ] || "$python" -m venv "$venv" || die "'$python -m venv' failed (see above)"
newest=(--upgrade --upgrade-strategy eager)
if [ -n "${PROTLIG_TORCH_INDEX:-}" ]; then
    pip_install --upgrade --index-url "$PROTLIG_TORCH_INDEX" "$(sed -n 's/^ *"\(torch>=[^"]*\)",$/\1/p' "$protlig_root/pyproject.toml")"
    newest=(--upgrade)
fi
say "installing the newest allowed versions into .venv-newest"
(cd "$protlig_root" && pip_install "${newest[@]}" -e ".[demo,deepspeed,dev,docs,hf,structure]") || die "installing the newest versions failed (see above)"

say "newest allowed versions on $(date -u +%Y-%m-%d), where they differ from constraints.txt:"
"$venv_python" - "$protlig_root/constraints.txt" <<'PYTHON' >&2
import sys
from importlib.metadata import PackageNotFoundError, version

for line in open(sys.argv[1], encoding="utf-8"):
    name, _, tested = line.strip().partition("==")
    try:
        if tested and version(name).split("+")[0] != tested:
            print(f"  {name} {version(name)} (constraints.txt: {tested})")
    except PackageNotFoundError:
        print(f"  {name} is no longer needed (constraints.txt: {tested})")
PYTHON

[ "$run" = yes ] || exit 0
cd "$protlig_root"
export OMP_NUM_THREADS=1 VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
exec python -m pytest -n "${PROTLIG_TEST_JOBS:-2}" --dist loadgroup -q -m "not slow" "$@"
