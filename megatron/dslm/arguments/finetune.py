"""The command line of finetune.py: a task, its files, and a pretrained model whose flags are taken from its folder."""

import hashlib
import os
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.arguments.folders import check_loaded
from megatron.dslm.arguments.parse import program_defaults
from megatron.dslm.arguments.partners import check_partners
from megatron.dslm.arguments.pretrained import FREE, check_against_pretrained, pretrained_arguments
from megatron.dslm.arguments.validate import resolve_schedule, validate_finetuning
from megatron.dslm.checkpoints.settings import TASK_DATA
from megatron.dslm.config.files import add_config_flags, config_of, print_config_and_exit, set_defaults
from megatron.dslm.config.flags import add_section
from megatron.dslm.config.one_line_parser import OneLineParser, spelled
from megatron.dslm.data.tokenizer import build_tokenizer
from megatron.dslm.logging.run_folder import check_owner
from megatron.dslm.models.bert_classifier import ENCODER
from megatron.dslm.models.sections import finetuning_sections, settings_given
from megatron.dslm.tasks import TASKS, Example
from megatron.dslm.tasks.base import count_labels
from megatron.dslm.tasks.features import check_lengths

_DATA = ("train_data", "valid_data", "test_data")


def build_finetune_parser() -> OneLineParser:
    """The parser of finetune.py, flags in groups."""
    parser = OneLineParser(
        prog="finetune.py",
        description="Fine-tune a BERT on a GLUE task or RACE. Run by torchrun, or plainly for one process; on CPU "
        "(gloo) or GPU (NCCL).",
        allow_abbrev=False,
    )
    for section in finetuning_sections(ENCODER):
        # --epochs 0 needs no learning rate
        add_section(parser, section, defaults=program_defaults(ENCODER), optional=("lr",))
    add_config_flags(parser)
    return parser


def parse_finetune_args(argv: Sequence[str] | None = None) -> Namespace:
    """Parses, reads the task's files, and checks all of it without torch or process groups.

    Beside the flags, the namespace holds `examples`: for each of train_data, valid_data and test_data a list of
    (path, examples), `notes` about what was left out of them, `tokenizer`, and `train_iters`.

    Exits with code 2 and one line that names the flag or file when something is wrong.
    """
    parser = build_finetune_parser()
    try:
        given = config_of(argv, finetuning_sections(ENCODER))
        saved = _defaults_from_pretrained(parser, argv, given.get("pretrained_checkpoint"))
        set_defaults(parser, given)
        print_config_and_exit(parser, argv, finetuning_sections(ENCODER))
        args = parser.parse_args(argv)
        args.given = settings_given(args, finetuning_sections(ENCODER), program_defaults(ENCODER))
        args.model = ENCODER
        args.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        args.rank = int(os.environ.get("RANK", "0"))
        check_partners(args)
        _complete(args, saved)
    except (UserError, OSError) as error:
        parser.error(str(error))
    return args


def _defaults_from_pretrained(
    parser: OneLineParser, argv: Sequence[str] | None, configured: str | None
) -> dict[str, Any]:
    """Makes the flags of the pretrained model the parser's defaults; what its folder says, {} without one."""
    peek = OneLineParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    peek.add_argument("--pretrained-checkpoint", default=configured)
    folder = peek.parse_known_args(argv)[0].pretrained_checkpoint
    if folder is None:
        return {}
    saved = pretrained_arguments(folder, ENCODER)
    known = {action.dest for action in parser._actions}
    defaults = {name: value for name, value in saved.items() if name in known}
    defaults["group_query_attention"] = saved["num_query_groups"] != saved["num_attention_heads"]
    defaults["seq_length"] = saved["max_position_embeddings"]
    set_defaults(parser, defaults)
    return saved


def _complete(args: Namespace, saved: dict[str, Any]) -> None:
    _settle_length(args)
    validate_finetuning(args)
    args.output_dir = args.output_dir or args.save
    args.tokenizer = build_tokenizer(args.tokenizer_type, args.vocab_file, args.merge_file)
    check_against_pretrained(args, saved, FREE)
    _read_data(args)
    if args.save is not None and args.keep_last is None:
        args.keep_last = 1
    args.train_iters = 0
    if args.epochs == 0:
        check_owner(args, None)
        return
    samples = args.train_samples or args.epochs * count_labels(args.examples["train_data"][0][1])
    args.train_iters = -(-samples // args.global_batch_size)
    resolve_schedule(args)
    check_loaded(args)


def _settle_length(args: Namespace) -> None:
    if args.train_samples is not None and args.epochs is not None:
        raise UserError("--train-samples contradicts --epochs: give one of them")
    args.epochs = 3 if args.epochs is None and args.train_samples is None else args.epochs
    if args.epochs == 0:
        if not (args.valid_data or args.test_data):
            raise UserError("--epochs 0 evaluates alone: give --valid-data or --test-data")
        if args.load is not None:
            raise UserError("--epochs 0 evaluates --pretrained-checkpoint (RUN/best, say): leave --load out")
        args.lr_decay_iters, args.lr_warmup_iters, args.lr_decay_style = 1, 0, "constant"
        args.lr, args.min_lr = 1.0, 0.0
    elif args.lr is None:
        raise UserError("--lr is missing")


def _read_data(args: Namespace) -> None:
    task = TASKS[args.task]
    if args.epochs != 0 and args.train_data is None:
        raise UserError("--train-data is missing (or give --epochs 0 to evaluate alone)")
    args.examples, args.notes = {}, []
    for name in _DATA:
        args.examples[name] = []
        for path in getattr(args, name) or []:
            try:
                examples, notes = task.read(path)
            except UserError as error:
                raise UserError(f"{spelled(name)} {error}") from None
            if task.cut_first_only:
                check_lengths(args.tokenizer, examples, args.seq_length)
            args.examples[name].append((path, examples))
            args.notes += notes
            if name != "test_data" and not count_labels(examples):
                raise UserError(f"{spelled(name)} {path} has no labels: give it as --test-data")
    args.contents = {
        name: [_digest(examples) for _, examples in args.examples[name]] for name in TASK_DATA if args.examples[name]
    }
    names = [task.submission(path) for path in args.test_data or [] if task.submission is not None]
    if len(set(names)) < len(names):
        raise UserError(f"--test-data {' '.join(args.test_data)}: each would be written to the same submission file")
    if args.train_data:
        together: list[Example] = [one for _, examples in args.examples["train_data"] for one in examples]
        labelled = [one for one in together if one.label is not None]
        args.examples["train_data"] = [(" ".join(args.train_data), labelled)]


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        digest.update(repr((example.id, example.texts, example.label)).encode())
    return digest.hexdigest()
