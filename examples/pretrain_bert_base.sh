#!/usr/bin/env bash
# BERT base, 12 x 768, sequence 512, on one node of 8 GPUs. Extra flags go to the trainer:
#   bash examples/pretrain_bert_base.sh            # Megatron's own initialisation
#   bash examples/pretrain_bert_base.sh --dslm     # DeepScaleLM
# DATA and VOCAB come from examples/prepare_full_wikipedia.sh. Not run on 8 GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA:-data/full_wikipedia/bert_text_sentence}
vocab=${VOCAB:-data/full_wikipedia/bert-vocab.txt}
run=${RUN:-runs/bert_base}
torchrun --nproc-per-node "${GPUS:-8}" pretrain_bert.py \
    --num-layers 12 --hidden-size 768 --num-attention-heads 12 --seq-length 512 --max-position-embeddings 512 \
    --micro-batch-size 32 --global-batch-size 256 --train-iters 1000000 --bf16 \
    --lr 1e-4 --min-lr 1e-5 --lr-decay-style linear --lr-warmup-fraction 0.01 --weight-decay 0.01 --clip-grad 1.0 \
    --data-path "$data" --vocab-file "$vocab" --split 969,30,1 \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --log-interval 100 --eval-interval 1000 --eval-iters 10 --trace-interval 1000 --save-interval 10000 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" "$@"
