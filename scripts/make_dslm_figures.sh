#!/usr/bin/env bash
# The original project's figures of DeepScaleLM, into figures/dslm: Pre-LN forward, Pre-LN backward and Post-LN backward,
# all flat, with the theory's curves and the numbers as JSON. lambda^2 = 0.995, as the original figures have it. Five
# minutes on two CPU cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/measure_signal.sh
measure "runs/signal/dslm-pre-ln-$layers" --dslm --dslm-lambda-sq 0.995
measure "runs/signal/dslm-post-ln-$layers" --dslm --dslm-lambda-sq 0.995 --norm-placement post
python scripts/draw_signal_figures.py dslm "runs/signal/dslm-pre-ln-$layers" "runs/signal/dslm-post-ln-$layers" \
    --output "${FIGURES:-figures}/dslm"
