#!/usr/bin/env bash
# All of English Wikipedia, tokenized for BERT and GPT: needs the network, about 100 GB of disk and a day of cores.
# With a dump of your own: SOURCE="--source dump --dump-file enwiki-pages-articles.xml.bz2" bash examples/...
# BERT's and GPT-2's published vocabularies work as well: put them where the trained ones would be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA_FOLDER:-data/full_wikipedia}
workers=${WORKERS:-$(getconf _NPROCESSORS_ONLN)}
mkdir -p "$data"
# shellcheck disable=SC2086  # SOURCE is several words
python tools/prepare_wikipedia.py ${SOURCE:---source huggingface} --output "$data/wikipedia.jsonl"
[ -f "$data/bert-vocab.txt" ] || python tools/train_vocab.py --input "$data/wikipedia.jsonl" \
    --tokenizer-type BertWordPieceLowerCase --vocab-size 30522 --output-prefix "$data/bert"
[ -f "$data/gpt-vocab.json" ] || python tools/train_vocab.py --input "$data/wikipedia.jsonl" \
    --tokenizer-type GPT2BPETokenizer --vocab-size 50257 --output-prefix "$data/gpt"
python tools/preprocess_data.py --input "$data/wikipedia.jsonl" --split-sentences --workers "$workers" \
    --tokenizer-type BertWordPieceLowerCase --vocab-file "$data/bert-vocab.txt" --output-prefix "$data/bert"
python tools/preprocess_data.py --input "$data/wikipedia.jsonl" --append-eod --workers "$workers" \
    --tokenizer-type GPT2BPETokenizer --vocab-file "$data/gpt-vocab.json" --merge-file "$data/gpt-merges.txt" \
    --output-prefix "$data/gpt"
