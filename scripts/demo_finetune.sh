#!/usr/bin/env bash
# Pretrains a small BERT on real text and fine-tunes it on two tasks of real sentences, on two CPU cores: is this the
# same verse (QQP's layout), and which of four verses renders this one (RACE's). The same from scratch beside it.
#   bash scripts/demo_finetune.sh [SCHEME [SEED...]]    SCHEME dslm (default), megatron or xavier; SEED 1 by default
# Less than 30 minutes a scheme and seed. Complete runs are skipped, others go on where they were cut short. All that
# was run so far is shown side by side at the end. No test data of QQP or RACE is involved: see docs/finetuning.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scheme=${1:-dslm}
shift || true
seeds=${*:-1}
bash scripts/prepare_finetune_data.sh
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1
runs=runs/demo_finetune
vocab=data/prose/bert-vocab.txt
mkdir -p "$runs/$scheme"
model=(
    --depth-scheme "$scheme" --num-layers 2 --hidden-size 128 --num-attention-heads 4 --activation relu
    --hidden-dropout 0 --attention-dropout 0
)
if [ "$scheme" = dslm ]; then
    model+=(--dslm-k 1) # the default, 2, leaves nothing of the skip in two layers
fi

# Both ranks on one batch: 700 steps of 64 sequences, half of them prose, half verses.
pretrain=$runs/$scheme/pretraining
torchrun --standalone --nproc-per-node 2 pretrain_bert.py "${model[@]}" --seq-length 192 \
    --data-path 0.5 data/prose/prose_text_sentence 0.5 data/verse_pairs/train_verses_text_sentence \
    --vocab-file "$vocab" --split 94,3,3 --micro-batch-size 16 --global-batch-size 32 --train-iters 700 \
    --lr 2e-3 --lr-warmup-fraction 0.1 --eval-interval 350 --eval-iters 4 --log-interval 50 --save-interval 350 \
    --save "$pretrain" --load "$pretrain" --tensorboard-dir "$pretrain/tensorboard" 2>&1 | tee "$pretrain.log"
