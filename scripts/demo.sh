#!/usr/bin/env bash
# From nothing to a BERT that learns with DeepScaleLM on real English: 24 layers, tensor-parallel over two CPU ranks.
# About 10 minutes on two slow cores. Run again, it resumes what was cut short or says that all is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
export PATH="$PWD/.venv/bin:$PATH"
data=data/wikipedia
run=runs/demo
mkdir -p "$run"

# The same flags with larger numbers are examples/pretrain_bert_base.sh. The vocabulary is small, of 800 word pieces:
# so few steps teach nothing about 30,000 words.
OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 pretrain_bert.py \
    --dslm --dslm-k 0.5 --tensor-model-parallel-size 2 \
    --num-layers 24 --hidden-size 64 --num-attention-heads 2 --seq-length 128 --position-embedding-type rope \
    --bert-no-binary-head --hidden-dropout 0 --attention-dropout 0 \
    --micro-batch-size 16 --train-iters 320 --lr 1e-2 --lr-warmup-iters 50 --lr-decay-style cosine \
    --data-path "$data/pieces_text_sentence" --vocab-file "$data/pieces-vocab.txt" --split 90,5,5 \
    --make-vocab-size-divisible-by 64 \
    --eval-interval 40 --eval-iters 8 --log-interval 10 --save-interval 80 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" --trace-theory 2>&1 | tee -a "$run/log.txt"

echo
dslm trace history "$run/tensorboard"
echo "Forward variance was 1 at every layer at the start; it grows as the branches learn, and the last norm divides it" \
    "out. Curves of every layer: .venv/bin/tensorboard --logdir $run/tensorboard"
