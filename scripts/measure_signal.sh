# Sourced by the make_*_figures.sh scripts: measures one model of the original project's figures at initialisation,
# on real text. BERT, 192 layers x 1024, 16 heads, sequence 256, ReLU, dropout 0.1, unless LAYERS and HIDDEN say
# otherwise. On GPUs a traced training step of torchrun, without one `dslm profile`, which needs 5 GiB: both write a
# trace.jsonl; N GPUs take a batch N times as large.
bash scripts/prepare_demo_data.sh
export PATH="$PWD/.venv/bin:$PATH"
layers=${LAYERS:-192}
hidden=${HIDDEN:-1024}
gpus=$(python -c "import torch; print(torch.cuda.device_count())")

measure() { # RUN_DIR SCHEME_FLAGS...
    local run=$1 data=data/wikipedia
    shift
    local flags=(
        --num-layers "$layers" --hidden-size "$hidden" --num-attention-heads 16 --seq-length 256 --activation relu
        --micro-batch-size 2 --data-path "$data/bert_text_sentence" --vocab-file "$data/bert-vocab.txt" --split 90,5,5
        --data-cache-path "$data/cache" --trace-sites layer weights --trace-dir "$run" "$@"
    )
    local settings="$gpus GPUs: ${flags[*]}"
    if [ "$(cat "$run/flags" 2>/dev/null)" = "$settings" ]; then
        echo "$run: measured already"
        return
    fi
    rm -rf "$run"
    echo "$run: measuring $layers layers x $hidden"
    if [ "$gpus" -gt 0 ]; then
        torchrun --standalone --nproc-per-node "$gpus" pretrain_bert.py "${flags[@]}" --train-iters 1 --lr 1e-4 \
            --eval-iters 0 --trace-interval 1 --trace-theory --use-distributed-optimizer
    else
        dslm profile bert "${flags[@]}"
    fi
    echo "$settings" > "$run/flags"
}
