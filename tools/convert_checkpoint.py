"""Converts a checkpoint into a folder for Hugging Face transformers, or such a folder into a checkpoint.

    python tools/convert_checkpoint.py --from megatron --to hf --load runs/demo/checkpoints --save demo-hf \
        --vocab-file data/wikipedia/bert-vocab.txt

writes a folder that AutoModel.from_pretrained loads anywhere, with trust_remote_code=True where this project is not
installed. The other way round, from such a folder or from a stock BERT's (model.safetensors):

    python tools/convert_checkpoint.py --from hf --to megatron --load demo-hf --save checkpoints

writes a checkpoint of weights that loads in any layout. One process does it; GPUs are not needed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megatron.dslm.conversion import to_huggingface, to_megatron
from megatron.dslm.data.command_line import ToolArgumentParser, run_tool
from megatron.dslm.models.family import families


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Convert a checkpoint to a Hugging Face folder, or such a folder to a checkpoint.")
    formats = ("megatron", "hf")
    parser.add_argument("--from", dest="source", choices=formats, required=True, help="what --load holds")
    parser.add_argument("--to", dest="target", choices=formats, required=True, help="what to write to --save")
    parser.add_argument("--load", required=True, help="folder with checkpoints, or a Hugging Face model's folder")
    parser.add_argument("--save", required=True, help="folder to write")
    parser.add_argument("--vocab-file", help="of the run, to put its tokenizer into the Hugging Face folder")
    parser.add_argument("--merge-file", help="of the run, beside a GPT's --vocab-file")
    parser.add_argument(
        "--model-class",
        choices=sorted({name for one in families() for name in one.hf_classes}),
        help="class of the Hugging Face model; by default the one that has all the checkpoint's heads",
    )
    args = parser.parse_args()
    if args.source == args.target:
        parser.error(f"--from {args.source} --to {args.target}: there is nothing to convert")
    if args.source == "hf":
        for name in ("vocab_file", "merge_file", "model_class"):
            if getattr(args, name) is not None:
                parser.error(f"--{name.replace('_', '-')} goes with --to hf")
    return args


def main() -> None:
    args = parse_arguments()
    print(f"reading {args.load}", file=sys.stderr)
    if args.source == "hf":
        print(to_megatron(args.load, args.save))
        return
    print(
        to_huggingface(
            args.load,
            args.save,
            vocab_file=args.vocab_file,
            merge_file=args.merge_file,
            model_class=args.model_class,
        )
    )


if __name__ == "__main__":
    run_tool(main)
