#!/usr/bin/env bash
# Installs what is missing, then lints, checks types and runs the tests, on two processes at once:
#   bash scripts/test.sh               the tests that cover every claim once; at most 8 minutes on two idle cores
#   bash scripts/test.sh --all         all tests, with their coverage of dslm_patches; at most 30 minutes
#   bash scripts/test.sh -k layouts    other arguments go to pytest, which then runs alone, on all tests
# docs/testing.md says which test holds which claim.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
export PATH="$PWD/.venv/bin:$PATH"
spread=(--numprocesses 2 --dist loadfile --no-loadscope-reorder)
case "${1:-}" in
    "") chosen=("${spread[@]}" -m "not slow") ;;
    --all) chosen=("${spread[@]}" --verbose --durations 10 --cov --cov-report term:skip-covered) ;;
    *) exec python -m pytest "$@" ;;
esac
ruff check .
ruff format --check .
# Beside the tests, which leave a core idle now and then; without its cache it takes most of a minute.
types=$(mktemp)
trap 'rm -f "$types"' EXIT
mypy > "$types" 2>&1 &
checked=$!
code=0
python -m pytest "${chosen[@]}" "${@:2}" || code=$?
wait "$checked" || code=$?
cat "$types"
exit "$code"
