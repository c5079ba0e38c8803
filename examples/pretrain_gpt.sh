#!/usr/bin/env bash
# GPT, 24 x 1024 with SwiGLU, RoPE and RMSNorm, on one node of 8 GPUs. Extra flags, --dslm say, go to the trainer.
# Not run on 8 GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA:-data/full_wikipedia/gpt_text_document}
vocab=${VOCAB:-data/full_wikipedia/gpt-vocab.json}
merges=${MERGES:-data/full_wikipedia/gpt-merges.txt}
run=${RUN:-runs/gpt}
torchrun --nproc-per-node "${GPUS:-8}" pretrain_gpt.py \
    --num-layers 24 --hidden-size 1024 --num-attention-heads 16 --seq-length 1024 \
    --swiglu --position-embedding-type rope --normalization RMSNorm --disable-bias-linear \
    --tensor-model-parallel-size 2 --sequence-parallel \
    --micro-batch-size 8 --global-batch-size 256 --train-iters 300000 --bf16 \
    --lr 3e-4 --min-lr 3e-5 --lr-decay-style cosine --lr-warmup-iters 2000 --weight-decay 0.1 --clip-grad 1.0 \
    --adam-beta2 0.95 --data-path "$data" --vocab-file "$vocab" --merge-file "$merges" --split 969,30,1 \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --log-interval 50 --eval-interval 1000 --eval-iters 10 --trace-interval 1000 --save-interval 5000 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" "$@"
