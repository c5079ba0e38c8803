#!/usr/bin/env bash
# What scripts/demo_finetune.sh needs: three verse tasks in data/verse_pairs; text to pretrain on, 21 MB of prose in data/prose
# and the chapters of the tasks' train split, verse by verse in both renderings; a vocabulary of 4,096 pieces; and the
# text's tokens in Megatron's format. The dev chapters are in none of it but the tasks. Skips what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
mkdir -p data/prose

python tools/prepare_verse_pairs.py --output data/verse_pairs
python tools/prepare_prose.py --output data/prose/prose.jsonl

# One vocabulary for pretraining and fine-tuning, small so that the output layer of a small model is cheap.
[ -f data/prose/bert-vocab.txt ] || python tools/train_vocab.py \
    --input data/prose/prose.jsonl data/verse_pairs/train_verses.jsonl \
    --tokenizer-type BertWordPieceLowerCase --vocab-size 4096 --output-prefix data/prose/bert

for text in prose/prose verse_pairs/train_verses; do
    [ -f "data/${text}_text_sentence.idx" ] || python tools/preprocess_data.py --input "data/$text.jsonl" \
        --split-sentences --tokenizer-type BertWordPieceLowerCase --vocab-file data/prose/bert-vocab.txt \
        --output-prefix "data/$text" --workers 2
done
