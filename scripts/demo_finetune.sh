#!/usr/bin/env bash
# Pretrains a small BERT on real text and fine-tunes it on two tasks of real sentences, on two CPU cores: is this the
# same verse (QQP's layout), and which of four verses renders this one (RACE's). The same from scratch beside it.
#   bash scripts/demo_finetune.sh [SCHEME [SEED...]]    SCHEME dslm (default), megatron or xavier; SEED 1 by default
# Half an hour a scheme and seed. Complete runs are skipped, others go on where they were cut short. All that
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

# Both ranks on one batch; a quarter prose, the rest verses.
pretrained=$runs/$scheme/pretraining
torchrun --standalone --nproc-per-node 2 pretrain_bert.py "${model[@]}" --seq-length 128 --max-position-embeddings 224 \
    --data-path 0.25 data/prose/prose_text_sentence 0.75 data/verse_pairs/train_verses_text_sentence \
    --vocab-file "$vocab" --split 94,3,3 --micro-batch-size 32 --global-batch-size 64 --train-iters 600 \
    --lr 1e-3 --lr-warmup-fraction 0.1 --eval-interval 200 --eval-iters 4 --log-interval 20 --save-interval 200 \
    --save "$pretrained" --load "$pretrained" --tensorboard-dir "$pretrained/tensorboard" 2>&1 | tee -a "$pretrained.log"

finetune() { # RUN FLAGS...: one task in a folder of its own, on one core
    local run=$1
    shift
    mkdir -p "$run"
    echo "$run: fine-tuning (see $run/log.txt)"
    python finetune.py --vocab-file "$vocab" --group-by-length --lr 4e-4 --lr-warmup-fraction 0.1 --log-interval 100 \
        --save "$run" --load "$run" --tensorboard-dir "$run/tensorboard" --trace-interval 0 "$@" >> "$run/log.txt" 2>&1 ||
        { tail -n 3 "$run/log.txt"; return 1; }
}

both() { # TASK SEED FLAGS...: from the pretrained weights and from scratch, at the same time
    local task=$1 seed=$2
    shift 2
    finetune "$runs/$scheme/$task-pretrained-seed$seed" --pretrained-checkpoint "$pretrained" --seed "$seed" "$@" &
    local first=$!
    trap 'kill "$first" 2>/dev/null' EXIT
    finetune "$runs/$scheme/$task-scratch-seed$seed" "${model[@]}" --max-position-embeddings 224 --seed "$seed" "$@"
    wait "$first"
    trap - EXIT
}

for seed in $seeds; do
    both paraphrase "$seed" --task QQP --seq-length 96 --micro-batch-size 32 --train-samples 96000 --eval-interval 1000 \
        --train-data data/verse_pairs/paraphrase/train.tsv --valid-data data/verse_pairs/paraphrase/dev.tsv
    both four_way "$seed" --task RACE --seq-length 224 --micro-batch-size 8 --train-samples 8000 --eval-interval 500 \
        --train-data data/verse_pairs/four_way/train --valid-data data/verse_pairs/four_way/dev
done
python scripts/report_finetune.py "$runs"
echo "Curves: .venv/bin/tensorboard --logdir $runs"
