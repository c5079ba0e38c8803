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
    """A parser whose errors are one line, printed once however many ranks make the same mistake."""

    def error(self, message: str) -> NoReturn:
        if os.environ.get("RANK", "0") == "0":
            print(f"{self.prog}: error: {message}", file=sys.stderr)
        else:
            # torchrun stops all ranks when one leaves: let the first one speak before that.
            time.sleep(SECONDS_FOR_THE_FIRST_RANK)
        self.exit(2)
