"""The parser of `dslm` and of its subcommands, whose flags are added when the subcommand is used."""

import argparse
from collections.abc import Callable
from typing import Any

from megatron.dslm.config.one_line_parser import OneLineParser


class CommandParser(OneLineParser):
    """A one-line parser that can put off adding its flags, as some take imports to spell out.

    Attributes:
        add_flags: called with the parser at its first use; None where the flags are there already.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})
        self.add_flags: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.add_flags is not None:
            add_flags, self.add_flags = self.add_flags, None
            add_flags(self)
        return super().parse_known_args(args, namespace)
