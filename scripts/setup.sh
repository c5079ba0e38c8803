#!/usr/bin/env bash
# Creates .venv with this project and its pinned dependencies, unless it is there already.
# On a machine with a GPU build of PyTorch already installed, use `pip install -e .` in that environment instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "scripts/setup.sh: $("$python" --version) is too old: Python 3.11 or newer is needed (set PYTHON=...)" >&2
    exit 2
}
stamp=.venv/installed
command -v sha256sum > /dev/null || sha256sum() { shasum -a 256; } # macOS
want=$(cat pyproject.toml constraints.txt | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi
echo "Installing into .venv (a minute or two) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
# PyTorch first and pinned: anything that pulls it as a dependency might take another build.
.venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
echo "$want" > "$stamp"
