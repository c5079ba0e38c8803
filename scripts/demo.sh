#!/usr/bin/env bash
# From nothing to a BERT that pretrains with DeepScaleLM on real English: 24 layers, tensor-parallel over two
# CPU ranks. About 10 minutes on two cores. Run again, it resumes what was cut short or says that all is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/prepare_demo_data.sh
export PATH="$PWD/.venv/bin:$PATH"
data=data/wikipedia
run=runs/demo
mkdir -p "$run"

# The same flags with larger numbers are examples/pretrain_bert_base.sh.
OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 pretrain_bert.py \
    --dslm --tensor-model-parallel-size 2 \
    --num-layers 24 --hidden-size 128 --num-attention-heads 4 --seq-length 128 --activation relu \
    --micro-batch-size 16 --train-iters 240 --lr 3e-3 --lr-warmup-iters 30 --lr-decay-style cosine \
    --data-path "$data/bert_text_sentence" --vocab-file "$data/bert-vocab.txt" --split 90,5,5 \
    --eval-interval 60 --eval-iters 8 --log-interval 10 --save-interval 60 \
    --save "$run/checkpoints" --load "$run/checkpoints" --tensorboard-dir "$run/tensorboard" --trace-theory 2>&1 | tee -a "$run/log.txt"

echo
echo "first: $(grep -m 1 '^validation loss' "$run/log.txt")"
echo "last:  $(grep '^validation loss' "$run/log.txt" | tail -n 1)"
echo "Curves, with every layer's signal over its prediction: .venv/bin/tensorboard --logdir $run/tensorboard"
dslm trace plot "$run/tensorboard" | tail -n 1
