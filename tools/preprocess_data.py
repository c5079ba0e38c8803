"""Tokenizes JSON lines into megatron-core's indexed datasets, with Megatron-LM's flags and output names.

For BERT and T5:
    python tools/preprocess_data.py --input wiki.jsonl --split-sentences --output-prefix data/wiki \
        --tokenizer-type BertWordPieceLowerCase --vocab-file bert-vocab.txt
For GPT:
    python tools/preprocess_data.py --input wiki.jsonl --append-eod --output-prefix data/wiki \
        --tokenizer-type GPT2BPETokenizer --vocab-file gpt2-vocab.json --merge-file gpt2-merges.txt

writes data/wiki_text_sentence.{bin,idx} or data/wiki_text_document.{bin,idx}: the --data-path of the training
scripts is that name without .bin.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megatron.dslm.data.command_line import (
    ToolArgumentParser,
    default_workers,
    expand_inputs,
    positive_int,
    run_tool,
)
from megatron.dslm.data.tokenizer import TOKENIZER_TYPES

if TYPE_CHECKING:
    from megatron.dslm.data.preprocess import Totals


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Tokenize JSON lines into megatron-core's indexed datasets.")
    group = parser.add_argument_group("input data")
    group.add_argument("--input", nargs="+", required=True, help="JSON lines files, or globs of them")
    group.add_argument("--json-keys", nargs="+", default=["text"], help="keys to extract from each line")
    group.add_argument("--split-sentences", action="store_true", help="split documents into sentences (BERT, T5)")
    group.add_argument("--keep-newlines", action="store_true", help="keep newlines between sentences when splitting")
    group.add_argument(
        "--sentence-splitter",
        choices=["nltk", "newline"],
        default="nltk",
        help="nltk: Punkt on each line; newline: a line is a sentence",
    )
    group.add_argument("--lang", default="english", help="language of the nltk splitter")
    group = parser.add_argument_group("tokenizer")
    group.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, required=True, help="which tokenizer")
    group.add_argument("--vocab-file", required=True, help="BERT's vocab.txt or GPT-2's encoder.json")
    group.add_argument("--merge-file", help="GPT-2's vocab.bpe")
    group.add_argument("--append-eod", action="store_true", help="append an end-of-document token (GPT)")
    group = parser.add_argument_group("output data")
    group.add_argument("--output-prefix", required=True, help="path of the output files without _KEY_LEVEL.bin")
    group = parser.add_argument_group("runtime")
    group.add_argument("--workers", type=positive_int, default=default_workers(), help="worker processes")
    group.add_argument(
        "--log-interval",
        type=positive_int,
        default=1000,
        help="documents between progress lines where stderr is no terminal",
    )
    args = parser.parse_args()
    if args.keep_newlines and not args.split_sentences:
        parser.error("--keep-newlines needs --split-sentences: without it a document is kept whole, newlines included")
    return args


def make_reporter(total_bytes: int, log_interval: int) -> "Callable[[Totals], None]":
    """A progress bar on a terminal; elsewhere Megatron-LM's progress lines."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        bar = tqdm(total=total_bytes, unit="B", unit_scale=True, desc="preprocess", leave=False)

        def show_bar(totals: "Totals") -> None:
            bar.set_postfix_str(f"{totals.num_documents / totals.seconds:.0f} documents/s", refresh=False)
            bar.update(totals.num_bytes - bar.n)
            if totals.num_bytes == total_bytes:
                bar.close()

        return show_bar

    next_report = log_interval

    def print_line(totals: "Totals") -> None:
        nonlocal next_report
        if totals.num_documents >= next_report:
            next_report = totals.num_documents + log_interval
            print(f"Processed {totals.num_documents} documents ({rates(totals)}).", file=sys.stderr)

    return print_line


def rates(totals: "Totals") -> str:
    megabytes = totals.num_bytes / 1e6
    return f"{totals.num_documents / totals.seconds:.1f} documents/s, {megabytes / totals.seconds:.2f} MB/s"


def main() -> None:
    args = parse_arguments()
    inputs = expand_inputs(args.input)
    from megatron.dslm.data.preprocess import EncoderOptions, output_paths, preprocess

    options = EncoderOptions(
        tokenizer_type=args.tokenizer_type,
        vocab_file=args.vocab_file,
        merge_file=args.merge_file,
        json_keys=tuple(dict.fromkeys(args.json_keys)),
        split_sentences=args.split_sentences,
        sentence_splitter=args.sentence_splitter,
        lang=args.lang,
        keep_newlines=args.keep_newlines,
        append_eod=args.append_eod,
    )
    reporter = make_reporter(sum(path.stat().st_size for path in inputs), args.log_interval)
    totals = preprocess(inputs, args.output_prefix, options, args.workers, reporter)
    sequences = "sentences" if args.split_sentences else "sequences"
    print(
        f"{totals.num_documents} documents ({totals.num_empty} empty ones left out), {totals.num_sequences} "
        f"{sequences}, {totals.num_tokens} tokens from {totals.num_bytes / 1e6:.2f} MB "
        f"in {totals.seconds:.1f} s ({rates(totals)})"
    )
    for key in options.json_keys:
        print(f"wrote {' and '.join(map(str, output_paths(args.output_prefix, key, args.split_sentences)))}")


if __name__ == "__main__":
    run_tool(main)
