#!/usr/bin/env bash
# Do deep models use their depth? 6 and 48 layers at equal tokens, and the loss of each with layers made the identity.
#   bash scripts/depth_use.sh [STEPS]    # default 600: at most 40 minutes on two cores; unfinished runs go on
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
exec .venv/bin/python -m studies.depth_use --layers 6 48 --steps "${1:-600}"
