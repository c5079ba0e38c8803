#!/usr/bin/env bash
# The deep BERT of arXiv 2403.09635: 192 layers x 1024, ReLU, sequence 256, with DeepScaleLM, on 8 GPUs.
# --norm-placement post trains its Post-LN sibling. Not run on 8 GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA:-data/full_wikipedia/bert_text_sentence}
vocab=${VOCAB:-data/full_wikipedia/bert-vocab.txt}
run=${RUN:-runs/bert_192x1024}
torchrun --nproc-per-node "${GPUS:-8}" pretrain_bert.py --dslm \
    --num-layers 192 --hidden-size 1024 --num-attention-heads 16 --seq-length 256 --activation relu \
    --tensor-model-parallel-size 2 --sequence-parallel \
    --micro-batch-size 16 --global-batch-size 512 --train-iters 500000 --bf16 \
    --recompute-granularity full --recompute-method uniform --recompute-num-layers 4 \
    --lr 1e-3 --min-lr 1e-5 --lr-decay-style linear --lr-warmup-fraction 0.01 --weight-decay 0.01 --clip-grad 1.0 \
    --data-path "$data" --vocab-file "$vocab" --split 969,30,1 \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --log-interval 100 --eval-interval 1000 --eval-iters 10 --trace-interval 1000 --save-interval 5000 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" "$@"
