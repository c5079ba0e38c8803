#!/usr/bin/env bash
# The 192-layer BERT over several nodes. Run it on every node with the same HEAD (host:port of one of them) and NODES:
#   NODES=4 HEAD=node0:29500 bash examples/multi_node.sh
# TP stays inside a node, data parallelism spans them. Not run on 8 GPUs yet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${NODES:?number of nodes}" "${HEAD:?host:port of the first node}"
# Ranks that die are started again, three times, and go on from the last checkpoint.
exec torchrun --nnodes "$NODES" --nproc-per-node "${GPUS:-8}" --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id dslm \
    pretrain_bert.py --dslm \
    --num-layers 192 --hidden-size 1024 --num-attention-heads 16 --seq-length 256 --activation relu \
    --tensor-model-parallel-size 2 --sequence-parallel \
    --micro-batch-size 16 --global-batch-size 2048 --train-iters 125000 --bf16 \
    --recompute-granularity full --recompute-method uniform --recompute-num-layers 4 \
    --lr 1e-3 --min-lr 1e-5 --lr-decay-style linear --lr-warmup-fraction 0.01 \
    --data-path "${DATA:-data/full_wikipedia/bert_text_sentence}" \
    --vocab-file "${VOCAB:-data/full_wikipedia/bert-vocab.txt}" \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --log-interval 50 --eval-interval 1000 --save-interval 1000 --keep-last 3 --async-save --trace-interval 500 \
    --save "${RUN:-runs/multi_node}/checkpoints" --load "${RUN:-runs/multi_node}/checkpoints" \
    --tensorboard-dir "${RUN:-runs/multi_node}/tensorboard" "$@"
