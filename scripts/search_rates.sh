#!/usr/bin/env bash
# Which learning rate, k and standard deviation suit which depth scheme: GPT or BERT, 64 wide, on real text.
#   bash scripts/search_rates.sh [gpt|bert [LAYERS [STEPS]]]    # default gpt 96 300: at most 90 minutes on two cores
# Complete runs are kept, unfinished ones go on: see python -m studies.rates --help for parts of the grid.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
model=${1:-gpt}
sequences=4
if [ "$model" = bert ]; then sequences=16; fi # only every seventh token has a loss
exec .venv/bin/python -m studies.rates "$model" --layers "${2:-96}" --steps "${3:-300}" --sequences "$sequences"
