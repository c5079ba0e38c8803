#!/usr/bin/env bash
# A 1000-layer, narrow GPT with DeepScaleLM on 8 GPUs, split over pipeline stages: 1000 x 256, 0.8 B parameters.
# scripts/thousand_layers.sh is its small sibling for a laptop, which was run. This one was not run on 8 GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA:-data/full_wikipedia/gpt_text_document}
vocab=${VOCAB:-data/full_wikipedia/gpt-vocab.json}
merges=${MERGES:-data/full_wikipedia/gpt-merges.txt}
run=${RUN:-runs/gpt_1000_layers}
torchrun --nproc-per-node "${GPUS:-8}" pretrain_gpt.py --dslm \
    --num-layers 1000 --hidden-size 256 --num-attention-heads 4 --seq-length 512 \
    --pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 125 \
    --micro-batch-size 4 --global-batch-size 256 --train-iters 100000 --bf16 \
    --recompute-granularity full --recompute-method uniform --recompute-num-layers 5 \
    --lr 1e-3 --min-lr 1e-5 --lr-decay-style cosine --lr-warmup-iters 1000 --weight-decay 0.01 --clip-grad 1.0 \
    --data-path "$data" --vocab-file "$vocab" --merge-file "$merges" --split 969,30,1 \
    --use-distributed-optimizer \
    --log-interval 50 --eval-interval 1000 --eval-iters 10 --trace-interval 1000 --save-interval 2000 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" "$@"
