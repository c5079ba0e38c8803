#!/usr/bin/env bash
# Which learning rate, k and standard deviation suit which depth scheme: GPT or BERT, 64 wide, on real text.
#   bash scripts/search_rates.sh [gpt|bert [LAYERS [STEPS]]]    # default gpt 96 400: at most 90 minutes on two cores
# Complete runs are kept, unfinished ones go on: see python -m studies.rates --help for parts of the grid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
exec .venv/bin/python -m studies.rates "${1:-gpt}" --layers "${2:-96}" --steps "${3:-400}"
