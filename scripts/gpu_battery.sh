#!/usr/bin/env bash
# What there is to find out on a GPU, in order of worth, in a call of at most 9 minutes: see studies/battery.py.
#   bash scripts/gpu_battery.sh --out OUT                # the first call
#   bash scripts/gpu_battery.sh --out OUT2 --done OUT    # what did not fit into it
# Where packages are missing and nothing can be fetched, bring the folder that scripts/pack_gpu_battery.sh makes: its
# wheels are installed beside the machine's own packages, and its data are taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pack=.gpu_battery
if [ -d "$pack" ]; then
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$pack"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
    mkdir -p data
    cp -rn "$pack/wikipedia" data/
fi
exec python3 -m studies.battery "$@"
