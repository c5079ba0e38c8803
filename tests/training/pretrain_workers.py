"""Whole runs of the trainer inside the pool's ranks."""

import contextlib
import io
from importlib import import_module

from megatron.dslm.arguments import parse_args
from megatron.dslm.training.pretrain import pretrain


def run(argv: list[str], model: str) -> tuple[int, str]:
    """(exit code, all that this rank printed) of a run from the command line on."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            pretrain(parse_args(model, argv), import_module(f"megatron.dslm.models.{model}"))
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()
