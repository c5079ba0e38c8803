#!/usr/bin/env bash
# Fine-tunes a pretrained BERT on RACE, middle and high: learning rates 1e-5 to 5e-5 by five seeds, 5 epochs each. Every run
# has a folder of its own and goes on where it was cut short; complete ones say so. Ends with the table of all of them.
#   CHECKPOINT=runs/bert_base/checkpoints VOCAB=... DATA=data/RACE bash examples/finetune/run_race.sh
# CHECKPOINT is what --save of pretrain_bert.py wrote, in any layout, or a Hugging Face BERT folder; DATA holds the
# task's own files. Not run on GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
checkpoint=${CHECKPOINT:-runs/bert_base/checkpoints}
vocab=${VOCAB:-data/full_wikipedia/bert-vocab.txt}
data=${DATA:-data/RACE}
runs=${RUNS:-runs/race}
for lr in ${LEARNING_RATES:-1e-5 2e-5 3e-5 4e-5 5e-5}; do
    for seed in ${SEEDS:-1 2 3 4 5}; do
        run="$runs/lr$lr-seed$seed"
        torchrun --nproc-per-node "${GPUS:-8}" finetune.py --task RACE --pretrained-checkpoint "$checkpoint" \
            --train-data "$data/train" --valid-data "$data/dev" --test-data "$data/test" \
            --vocab-file "$vocab" --seq-length 512 --epochs 5 --micro-batch-size 1 --global-batch-size 8 --bf16 \
            --lr "$lr" --lr-warmup-fraction 0.06 --weight-decay 0.01 --seed "$seed" --log-interval 100 \
            --save "$run" --load "$run" --tensorboard-dir "$run/tensorboard" --trace-interval 0 "$@" ||
            echo "$run failed: going on with the next" >&2
    done
done
python tools/summarise_sweep.py "$runs"
