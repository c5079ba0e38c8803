#!/usr/bin/env bash
# What a small fine-tuning study needs: three verse tasks in data/verse_pairs, and in data/prose 21 MB of prose to
# pretrain on, a vocabulary of 8,192 pieces, and the prose's tokens in Megatron's format. Skips what is there.
# The prose holds no verse. With --with-train-verses the chapters of the tasks' train split are added, in
# data/prose_with_verses; the dev chapters never are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
prose=data/prose
with_verses=()
case "${1-}" in
    "") ;;
    --with-train-verses)
        prose=data/prose_with_verses
        with_verses=(--with-train-verses data/verse_pairs/train_verses.jsonl)
        ;;
    *)
        echo "scripts/prepare_finetune_data.sh: unknown argument $1; expected none or --with-train-verses" >&2
        exit 2
        ;;
esac
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
mkdir -p "$prose"

python tools/prepare_verse_pairs.py --output data/verse_pairs
python tools/prepare_prose.py --output "$prose/prose.jsonl" ${with_verses[@]+"${with_verses[@]}"}

# One vocabulary for pretraining and fine-tuning. It may know the train chapters' words, not the dev chapters'.
inputs=("$prose/prose.jsonl")
[ ${#with_verses[@]} -gt 0 ] || inputs+=(data/verse_pairs/train_verses.jsonl)
[ -f "$prose/bert-vocab.txt" ] || python tools/train_vocab.py --input "${inputs[@]}" \
    --tokenizer-type BertWordPieceLowerCase --vocab-size 8192 --output-prefix "$prose/bert"

[ -f "$prose/bert_text_sentence.idx" ] || python tools/preprocess_data.py --input "$prose/prose.jsonl" \
    --split-sentences --tokenizer-type BertWordPieceLowerCase --vocab-file "$prose/bert-vocab.txt" \
    --output-prefix "$prose/bert" --workers 2
