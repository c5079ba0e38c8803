"""`dslm profile`: every layer's signal measured at initialisation, of a model too deep for memory."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.cli.outputs import add_output_flags, check_outputs, save_figure, write_json
from megatron.dslm.models.family import NAMES, family

SITES = ("layer", "weights")


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "profile",
        help="measure every layer of a model too deep for memory, at initialisation",
        description="Run one micro-batch forward and backward through a model at initialisation, drawing each layer's "
        "weights from the seed when it is needed, and measure every layer. Takes the model, depth-scheme, dropout and "
        "data flags of pretrain_bert.py and pretrain_gpt.py; without data, tokens are random by Zipf's law.",
    )
    models = parser.add_subparsers(dest="model", metavar="MODEL", required=True)
    for model in NAMES:
        models.add_parser(model, help=f"a {model.upper()}").add_flags = partial(_add_flags, model=model)
    parser.set_defaults(run=run)


def _add_flags(parser: argparse.ArgumentParser, model: str) -> None:
    from dslm_patches.tracing.names import SITES as ALL_SITES
    from megatron.dslm.arguments.parse import program_defaults
    from megatron.dslm.config.flags import add_section
    from megatron.dslm.models.sections import data_sections, model_sections

    for section in (*model_sections(model), *data_sections(model)):
        add_section(parser, section, defaults=program_defaults(model), optional=("vocab_file",))
    add = parser.add_argument_group("profile").add_argument
    add("--micro-batch-size", type=int, default=1, help="sequences; default 1")
    add("--seed", type=int, default=1234, help="of weights, data order and dropout")
    add(
        "--vocab-size",
        type=int,
        help=f"tokens of a vocabulary without --vocab-file; default {family(model).published_vocabulary}",
    )
    add("--trace-sites", nargs="+", choices=ALL_SITES, default=list(SITES), help="default layer weights")
    add("--trace-dir", type=Path, metavar="RUN_DIR", help="write trace.jsonl there, as a traced run does")
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Measures, prints a summary, and writes what was asked for.

    Raises:
        UserError: a flag that is wrong or contradicts another, or a file that cannot be read or written.
    """
    check_outputs(args)
    _check_trace_dir(args)
    if args.plot is not None and not set(args.trace_sites) & set(SITES):
        raise UserError("--plot draws against depth: give --trace-sites layer or weights")
    trainer_args = _trainer_args(args)
    trainer_args.trace_theory = True
    from tqdm import tqdm

    from dslm_patches.tracing.trace_file import TraceWriter
    from megatron.dslm.cli.trace import summary
    from megatron.dslm.distributed.libraries import prepare_libraries

    prepare_libraries()
    from megatron.dslm.logging.trace_header import trace_header
    from megatron.dslm.training.profile import profile

    with tqdm(total=2 * args.num_layers, unit="layer", desc="forward and backward", file=sys.stderr) as bar:
        scheme, record = profile(trainer_args, family(args.model).model(), bar.update)
    header = trace_header(trainer_args, scheme, record, _warn)
    print(header.title)
    print("\n".join(summary(record)))
    if args.trace_dir is not None:
        TraceWriter(args.trace_dir, header).write(record)
        print(f"wrote {args.trace_dir / 'trace.jsonl'}")
    if args.json is not None:
        write_json(args.json, {**header.as_json(), **record.as_json()})
    if args.plot is not None:
        _plot(args.plot, header, record)
    return 0


def _check_trace_dir(args: argparse.Namespace) -> None:
    """Before minutes of work: the folder can be written to, and holds no run's trace."""
    if args.trace_dir is None:
        return
    args.trace_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(args.trace_dir, os.W_OK):
        raise UserError(f"--trace-dir {args.trace_dir} cannot be written to")
    if (args.trace_dir / "trace.jsonl").exists():
        raise UserError(f"--trace-dir {args.trace_dir} holds a trace already: remove it, or give another folder")


def _warn(text: str) -> None:
    print(f"dslm profile: warning: {text}", file=sys.stderr)


def _plot(path: Path, header: Any, record: Any) -> None:
    from dslm_patches.tracing.figures import Curve, depth_panels, draw_depth_figure, new_depth_figure

    figure = new_depth_figure(len(depth_panels(header)))
    draw_depth_figure(figure, header, [Curve("measured", record)], header.title)
    save_figure(path, figure)


def _trainer_args(args: argparse.Namespace) -> argparse.Namespace:
    """The trainer's arguments for one step of one micro-batch on one rank, all checked."""
    from megatron.dslm.arguments.data_files import check_data_files
    from megatron.dslm.arguments.layout import resolve_layout
    from megatron.dslm.arguments.parse import build_parser
    from megatron.dslm.arguments.validate import validate, validate_model
    from megatron.dslm.data.content import describe_data

    needed = "--num-layers 1 --hidden-size 1 --num-attention-heads 1 --seq-length 1 --micro-batch-size 1 --lr 1"
    filled = build_parser(args.model).parse_args([*needed.split(), *["--train-iters", "1", "--vocab-file", "-"]])
    filled.eval_iters, filled.rank, filled.world_size = 0, 0, 1
    own = {name: value for name, value in vars(args).items() if name not in ("run", "plot", "json", "add_flags")}
    vars(filled).update(own, trace_dir=None)
    if args.data_path is None and args.train_data_path is None:
        for name in ("vocab_file", "merge_file", "split", "valid_data_path", "test_data_path"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} goes with --data-path: without it tokens are random")
        validate_model(filled)
        resolve_layout(filled)
        filled.tokenizer = SimpleNamespace(vocab_size=args.vocab_size or family(args.model).published_vocabulary)
        return filled
    if args.vocab_size is not None:
        raise UserError("--vocab-size contradicts --data-path: the vocabulary is that of --vocab-file")
    if args.vocab_file is None:
        raise UserError("--data-path needs --vocab-file")
    sites, filled.trace_sites = filled.trace_sites, None  # a profile traces without the trainer's folders
    validate(filled)
    filled.trace_sites = sites
    check_data_files(filled)
    describe_data(filled)
    return filled
