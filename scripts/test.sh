#!/usr/bin/env bash
# Installs what is missing, then lints, checks types and runs the test suite. Arguments go to pytest:
#   bash scripts/test.sh -k layouts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
if [ $# -eq 0 ]; then
    ruff check .
    ruff format --check .
    mypy
fi
python -m pytest "$@"
