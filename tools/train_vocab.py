"""Trains a vocabulary on JSON lines: WordPiece in BERT's format, or byte-level BPE in GPT-2's.

    python tools/train_vocab.py --input wiki.jsonl --tokenizer-type BertWordPieceLowerCase --vocab-size 8192 \
        --output-prefix data/bert

writes data/bert-vocab.txt; for GPT2BPETokenizer it is PREFIX-vocab.json and PREFIX-merges.txt. A small
vocabulary makes a small model much cheaper. The same text gives the same files.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dslm_patches.files import atomic_outputs
from megatron.dslm.data.command_line import (
    ToolArgumentParser,
    expand_inputs,
    positive_int,
    run_tool,
)
from megatron.dslm.data.tokenizer import TOKENIZER_TYPES


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Train a WordPiece or byte-level BPE vocabulary on JSON lines.")
    parser.add_argument("--input", nargs="+", required=True, help="JSON lines files, or globs of them")
    parser.add_argument("--json-keys", nargs="+", default=["text"], help="keys to extract from each line")
    parser.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, required=True, help="what to train")
    parser.add_argument("--vocab-size", type=positive_int, default=30522, help="tokens, special ones included")
    parser.add_argument("--output-prefix", required=True, help="path of the files without -vocab.txt, -vocab.json, ...")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    is_bpe = args.tokenizer_type == "GPT2BPETokenizer"
    suffixes = ["vocab.json", "merges.txt"] if is_bpe else ["vocab.txt"]
    outputs = [Path(f"{args.output_prefix}-{suffix}") for suffix in suffixes]
    names = " and ".join(map(str, outputs))
    if all(path.exists() for path in outputs):
        print(f"{names}: already there, nothing done (remove to train again)")
        return
    inputs = expand_inputs(args.input)

    from tqdm import tqdm

    from megatron.dslm.data.jsonl import read_texts
    from megatron.dslm.data.vocab_training import train_bpe, train_wordpiece

    def texts() -> Iterator[str]:
        yield from tqdm(read_texts(inputs, args.json_keys), unit=" texts", desc="read", disable=None, leave=False)

    with atomic_outputs(*outputs) as temporary:
        if is_bpe:
            size = train_bpe(texts, args.vocab_size, *temporary)
        else:
            size = train_wordpiece(texts, args.vocab_size, args.tokenizer_type == "BertWordPieceLowerCase", *temporary)
    shortfall = (
        f" (fewer than --vocab-size {args.vocab_size}: the text holds no more)" if size < args.vocab_size else ""
    )
    print(f"wrote {names}: {size} tokens{shortfall}")


if __name__ == "__main__":
    run_tool(main)
