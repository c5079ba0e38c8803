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
from pathlib import Path
from typing import TYPE_CHECKING

from dslm_patches.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megatron.dslm.data.command_line import (
    ToolArgumentParser,
    available_cores,
    expand_inputs,
    positive_int,
    run_tool,
)
from megatron.dslm.data.compressed import COMPRESSED, STDIN
from megatron.dslm.data.jsonl import BadLineError
from megatron.dslm.data.tokenizer import TOKENIZER_TYPES

if TYPE_CHECKING:
    from megatron.dslm.data.preprocess import Totals


MOST_REPORTED = 100
"""Bad lines that are named; all are counted."""


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Tokenize JSON lines into megatron-core's indexed datasets.")
    group = parser.add_argument_group("input data")
    group.add_argument(
        "--input",
        nargs="+",
        required=True,
        help="JSON lines files, plain, .gz or .zst, or globs of them; - is standard input",
    )
    group.add_argument("--json-keys", nargs="+", default=["text"], help="keys to extract from each line")
    group.add_argument(
        "--split-sentences",
        action="store_true",
        help="split documents into sentences (BERT, T5); in WordPiece, those above 512 tokens, which sampling would "
        "leave out with their documents, are cut between words into even pieces",
    )
    group.add_argument("--keep-newlines", action="store_true", help="keep newlines between sentences when splitting")
    group.add_argument(
        "--sentence-splitter",
        choices=["punkt", "nltk", "newline"],
        default="punkt",
        help="punkt: Punkt on each line, and full stops of Chinese and Japanese; nltk: the same sentences by NLTK's "
        "own code, slowly; newline: a line is one",
    )
    group.add_argument("--lang", default="english", help="language of Punkt")
    group.add_argument(
        "--on-bad-line",
        choices=["halt", "skip"],
        default="halt",
        help="a line that is no JSON object with the keys: stop and write nothing, or leave it out and report it",
    )
    group = parser.add_argument_group("tokenizer")
    group.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, required=True, help="which tokenizer")
    group.add_argument("--vocab-file", required=True, help="BERT's vocab.txt or GPT-2's encoder.json")
    group.add_argument("--merge-file", help="GPT-2's vocab.bpe")
    group.add_argument("--append-eod", action="store_true", help="append an end-of-document token (GPT)")
    group = parser.add_argument_group("output data")
    group.add_argument("--output-prefix", required=True, help="path of the output files without _KEY_LEVEL.bin")
    group = parser.add_argument_group("runtime")
    group.add_argument("--workers", type=positive_int, default=available_cores(), help="worker processes")
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


class Reporter:
    """A progress bar on a terminal, elsewhere Megatron-LM's progress lines; and the first bad lines."""

    def __init__(self, total_bytes: int | None, log_interval: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total_bytes, unit="B", unit_scale=True, desc="preprocess", leave=False, disable=None)
        self._log_interval = self._next = log_interval

    def __call__(self, totals: "Totals", bad: list[str]) -> None:
        for problem in bad[: max(0, MOST_REPORTED - totals.num_bad_lines + len(bad))]:
            self._bar.write(f"warning: {problem}; skipped", file=sys.stderr)
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{totals.num_documents / totals.seconds:.0f} documents/s", refresh=False)
            self._bar.update(totals.num_bytes - self._bar.n)
        elif totals.num_documents >= self._next:
            self._next = totals.num_documents + self._log_interval
            print(f"Processed {totals.num_documents} documents ({rates(totals)}).", file=sys.stderr)

    def close(self, totals: "Totals") -> None:
        self._bar.close()
        if totals.num_bad_lines:
            more = ", the first above" if totals.num_bad_lines > MOST_REPORTED else ""
            print(f"warning: {totals.num_bad_lines} bad lines were skipped{more}", file=sys.stderr)


def rates(totals: "Totals") -> str:
    megabytes = totals.num_bytes / 1e6
    return f"{totals.num_documents / totals.seconds:.1f} documents/s, {megabytes / totals.seconds:.2f} MB/s"


def unsplit(totals: "Totals", args: argparse.Namespace) -> str:
    splitter = args.sentence_splitter + ("" if args.sentence_splitter == "newline" else f" --lang {args.lang}")
    return (
        f"{totals.num_unsplit} of {totals.num_documents} documents are one sentence to --sentence-splitter {splitter}, "
        "and BERT's next-sentence prediction leaves out what has no two: if the text has more, give its --lang, or a "
        "sentence a line and --sentence-splitter newline"
    )


def main() -> None:
    args = parse_arguments()
    inputs = expand_inputs(args.input)
    from megatron.dslm.data.long_sentences import LONGEST_SENTENCE
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
        skip_bad_lines=args.on_bad_line == "skip",
    )
    unknown = any(path == STDIN or path.suffix in COMPRESSED for path in inputs)
    reporter = Reporter(None if unknown else sum(path.stat().st_size for path in inputs), args.log_interval)
    try:
        totals = preprocess(inputs, args.output_prefix, options, args.workers, reporter)
    except BadLineError as error:
        raise UserError(f"{error} (--on-bad-line skip leaves such lines out)") from error
    reporter.close(totals)
    sequences = "sentences" if args.split_sentences else "sequences"
    if totals.num_cut:
        sequences += f" ({totals.num_cut} of above {LONGEST_SENTENCE} tokens were cut)"
    print(
        f"{totals.num_documents} documents ({totals.num_empty} empty ones left out), {totals.num_sequences} "
        f"{sequences}, {totals.num_tokens} tokens from {totals.num_bytes / 1e6:.2f} MB "
        f"in {totals.seconds:.1f} s ({rates(totals)})"
    )
    if args.split_sentences and 2 * totals.num_unsplit > totals.num_documents:
        print(f"warning: {unsplit(totals, args)}", file=sys.stderr)
    for key in options.json_keys:
        print(f"wrote {' and '.join(map(str, output_paths(args.output_prefix, key, args.split_sentences)))}")


if __name__ == "__main__":
    run_tool(main)
