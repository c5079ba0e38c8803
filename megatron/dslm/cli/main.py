"""Entry point of the `dslm` command. `dslm --help` imports neither torch nor numpy nor matplotlib."""

import sys
from collections.abc import Sequence

from dslm_patches.errors import UserError
from megatron.dslm.cli import approximations, predict, profile, simulate, trace
from megatron.dslm.cli.parser import CommandParser

SUBCOMMANDS = (predict, profile, simulate, approximations, trace)
"""Each has `add_parser(subparsers)`, which registers a parser whose default `run` maps arguments to an exit code."""
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and gives its exit code.

    A user's mistake (UserError, OSError) exits with code 2 and one line on standard error.
    """
    parser = CommandParser(prog="dslm", description="Signal propagation in transformers, predicted and simulated.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for subcommand in SUBCOMMANDS:
        subcommand.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (UserError, OSError) as error:
        subparsers.choices[args.command].error(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(f"dslm {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
