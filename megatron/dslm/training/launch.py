"""From checked arguments to a run that ends on all ranks alike, and says in one line why it could not go on."""

import sys
from argparse import Namespace
from collections.abc import Callable

from megatron.dslm.initialize import initialize, shut_down
from megatron.dslm.training.step import NonFiniteError


def launch(args: Namespace, program: str, train: Callable[[], None]) -> None:
    """Brings this rank up, runs `train`, and takes the process groups down.

    Exits with code 2 and one line when the data or the checkpoint does not fit the arguments, with code 1
    and one line when the loss or the gradient is no longer finite.

    Args:
        program: name of the entry point, in front of that line.
    """
    initialize(args)
    try:
        train()
    except ValueError as error:
        # All ranks check the same things and meet the same error: the first one says it.
        _leave(f"{program}: error: {error}", code=2, speaks=args.rank == 0)
    except NonFiniteError as error:
        # The last rank always holds the loss.
        _leave(f"{program}: stopped: {error}", code=1, speaks=args.rank == args.world_size - 1)
    finally:
        shut_down()


def _leave(line: str, *, code: int, speaks: bool) -> None:
    if speaks:
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)
