"""From the command line to a checked namespace, or to one line on standard error and exit code 2."""

import argparse
import os
from collections.abc import Sequence

from dslm_patches.errors import UserError
from megatron.dslm.arguments.data_files import check_data_files
from megatron.dslm.arguments.folders import check_loaded
from megatron.dslm.arguments.partners import check_partners
from megatron.dslm.arguments.pretrained import FREE, check_against_pretrained, pretrained_arguments
from megatron.dslm.arguments.validate import validate
from megatron.dslm.config.files import add_config_flags, config_of, print_config_and_exit, set_defaults
from megatron.dslm.config.flags import add_section
from megatron.dslm.config.one_line_parser import OneLineParser
from megatron.dslm.data.content import describe_data
from megatron.dslm.models.family import family
from megatron.dslm.models.sections import pretraining_sections, settings_given


def program_defaults(model: str) -> dict[str, str]:
    """Defaults that a model's programs have of their own, by the setting's name."""
    return {"tokenizer_type": family(model).tokenizer_types[0]}


def build_parser(model: str) -> OneLineParser:
    """The parser of the program that pretrains a family, flags in groups."""
    parser = OneLineParser(
        prog=family(model).program,
        description=f"Pretrain a {family(model).title} on megatron-core, with DeepScaleLM or another depth scheme. "
        "Run by torchrun, or plainly for one process; on CPU (gloo) or GPU (NCCL).",
        allow_abbrev=False,
    )
    for section in pretraining_sections(model):
        add_section(parser, section, defaults=program_defaults(model))
    add_config_flags(parser)
    return parser


def parse_args(model: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses, fills in what follows from other flags, and checks all of it without torch or process groups.

    Exits with code 2 and one line that names the flag or file when something is wrong.
    """
    parser = build_parser(model)
    try:
        set_defaults(parser, config_of(argv, pretraining_sections(model)))
        print_config_and_exit(parser, argv, pretraining_sections(model))
        args = parser.parse_args(argv)
        args.given = settings_given(args, pretraining_sections(model), program_defaults(model))
        args.model = model
        args.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        args.rank = int(os.environ.get("RANK", "0"))
        check_partners(args)
        validate(args)
        check_data_files(args)
        describe_data(args)
        if args.pretrained_checkpoint is not None:
            free = () if args.depth_scheme == "dslm" else FREE
            check_against_pretrained(args, pretrained_arguments(args.pretrained_checkpoint, model), free)
        check_loaded(args)
    except (UserError, OSError) as error:
        parser.error(str(error))
    return args
