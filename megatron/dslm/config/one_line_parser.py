"""Errors of a command line as one line on standard error and exit code 2; imports nothing but argparse."""

import argparse
import os
import sys
import time
from typing import NoReturn

SECONDS_FOR_THE_FIRST_RANK = 10.0


def spelled(name: str) -> str:
    """The command-line spelling of an argument's name."""
    return "--" + name.replace("_", "-")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, printed once a machine however many of its ranks make the same mistake."""

    def error(self, message: str) -> NoReturn:
        if _local_rank() == 0:
            print(f"{self.prog}: error: {message}", file=sys.stderr)
        let_the_first_rank_speak()
        self.exit(2)


def let_the_first_rank_speak() -> None:
    """Before ranks know each other: waits, unless this is its machine's first rank, for that one to speak and leave.

    torchrun stops all ranks when one leaves, so a rank that comes back from here has something of its own to say.
    """
    if _local_rank() != 0:
        time.sleep(SECONDS_FOR_THE_FIRST_RANK)


def _local_rank() -> int:
    """This rank's number on its machine; without torchrun, whoever set RANK alone has one machine."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
