"""What the command-line tools share: one-line errors, and inputs named on the command line."""

import argparse
import glob
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from dslm_patches.errors import UserError

USER_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class ToolArgumentParser(argparse.ArgumentParser):
    """An argument parser that shows defaults in --help and reports a wrong flag in one line."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message}\n")


def run_tool(main: Callable[[], None]) -> NoReturn:
    """Runs a tool and exits: 0, or 2 with one line on stderr for a user's mistake (UserError, OSError)."""
    program = os.path.basename(sys.argv[0])
    # an exception instead of sudden death, so that temporary files and worker processes go too
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(TERMINATED))
    try:
        main()
    except (UserError, OSError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; nothing was written", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def available_cores() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expand_inputs(patterns: Sequence[str]) -> list[Path]:
    """The files that --input names, in order, a glob's matches sorted; "-" is standard input.

    Raises:
        UserError: a pattern that matches no file, or a file that is empty.
    """
    paths: list[Path] = []
    if list(patterns) == ["-"]:
        return [Path("-")]
    for pattern in patterns:
        if pattern == "-":
            raise UserError("--input -: standard input cannot be read beside files")
        matches = [Path(pattern)] if os.path.exists(pattern) else [Path(m) for m in sorted(glob.glob(pattern))]
        if not matches:
            raise UserError(f"--input {pattern}: no such file; expected a .jsonl file or a glob that matches some")
        paths.extend(matches)
    for path in paths:
        if path.is_dir():
            raise UserError(f"--input {path}: is a folder; expected a .jsonl file, or a glob such as {path}/*.jsonl")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"--input {path}: the file is empty; expected one JSON object a line")
    return paths
