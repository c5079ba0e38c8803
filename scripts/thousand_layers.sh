#!/usr/bin/env bash
# Trains a 1000-layer GPT, 32 wide, on real text, once with DeepScaleLM and once with Post-LN and Megatron's own
# initialisation: the same data, steps and learning rates. Two runs at a time, one core each; an hour on two cores.
# Runs that are complete are skipped. Ends with docs/figures/thousand_layers.png and docs/thousand_layers.json.
#   bash scripts/thousand_layers.sh [LAYERS [ITERATIONS]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
layers=${1:-1000}
iterations=${2:-170}
bash scripts/prepare_demo_data.sh
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
data=data/wikipedia
runs=runs/thousand_layers
learning_rates="1e-2 3e-3 1e-3"
mkdir -p "$runs"

train() { # NAME LEARNING_RATE SCHEME_FLAGS...
    local run="$runs/$1-$2"
    local lr=$2
    shift 2
    if grep -qsE '^(test loss|pretrain_gpt.py: stopped)' "$run.log"; then
        echo "$run: complete"
        return
    fi
    rm -rf "$run"
    echo "$run: training (see $run.log)"
    # Code 1 is a loss or gradient that is no longer finite: a result, kept in the log.
    python pretrain_gpt.py "$@" --lr "$lr" \
        --num-layers "$layers" --hidden-size 32 --ffn-hidden-size 64 --num-attention-heads 2 --seq-length 64 \
        --position-embedding-type rope --hidden-dropout 0 --attention-dropout 0 --make-vocab-size-divisible-by 64 \
        --micro-batch-size 8 --train-iters "$iterations" --lr-warmup-iters 15 \
        --lr-decay-style WSD --lr-wsd-decay-iters 50 --lr-wsd-decay-style linear \
        --data-path "$data/characters_text_document" --split 90,5,5 --vocab-file "$data/characters-vocab.json" \
        --merge-file "$data/characters-merges.txt" --data-cache-path "$runs/cache" \
        --eval-interval 40 --eval-iters 8 --log-interval 10 --trace-interval 40 --tensorboard-dir "$run" \
        > "$run.log" 2>&1 || [ $? -eq 1 ]
}

(for lr in $learning_rates; do train dslm "$lr" --dslm --dslm-k 0.5; done) &
first=$!
(for lr in $learning_rates; do train megatron-post-ln "$lr" --depth-scheme megatron --norm-placement post; done) &
wait "$first"
wait
python scripts/report_thousand_layers.py "$runs" --data "$data/characters_text_document.bin"
