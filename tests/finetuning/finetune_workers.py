"""Whole fine-tuning runs inside the pool's ranks."""

import contextlib
import io
import re

from megatron.dslm.arguments.finetune import parse_finetune_args
from megatron.dslm.finetuning.finetune import finetune


def run(argv: list[str]) -> tuple[int, str]:
    """(exit code, all that this rank printed) of a run from the command line on."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            finetune(parse_finetune_args(argv))
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def losses(output: str) -> list[float]:
    """The losses of the progress lines."""
    return [float(loss) for loss in re.findall(r"^iteration .*\| loss ([\d.]+) ", output, re.MULTILINE)]
