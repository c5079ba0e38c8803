#!/usr/bin/env bash
# The original project's figures of vanilla transformers, into figures/xavier: Pre-LN forward (linear), Pre-LN backward
# (1/sqrt(l+1)) and Post-LN backward (exponential), with the theory's curves and the numbers as JSON. Five minutes on two
# CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/measure_signal.sh
measure "runs/signal/xavier-pre-ln-$layers" --depth-scheme xavier
measure "runs/signal/xavier-post-ln-$layers" --depth-scheme xavier --norm-placement post
python scripts/draw_signal_figures.py xavier "runs/signal/xavier-pre-ln-$layers" "runs/signal/xavier-post-ln-$layers" \
    --output "${FIGURES:-figures}/xavier"
