#!/usr/bin/env bash
# 1000 layers on real text: DeepScaleLM beside Megatron's Pre-LN (three standard deviations), Xavier's, and Post-LN.
#   bash scripts/thousand_layers.sh [LAYERS [STEPS]]    # default 1000 500
# Complete runs are kept, unfinished ones go on: see python -m studies.thousand_layers --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
exec .venv/bin/python -m studies.thousand_layers --layers "${1:-1000}" --steps "${2:-500}"
