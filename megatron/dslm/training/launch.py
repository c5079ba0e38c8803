"""From checked arguments to a run that ends on all ranks, and says in one line why it could not go on."""

import sys
import traceback
from argparse import Namespace
from collections.abc import Callable

from megatron.dslm.checkpoints.save import SaveError
from megatron.dslm.faults.diagnosis import is_lost_connection
from megatron.dslm.faults.watch import Watch
from megatron.dslm.initialize import initialize, shut_down
from megatron.dslm.training.step import NonFiniteError


def launch(args: Namespace, program: str, train: Callable[[Watch], None]) -> None:
    """Brings this rank up, runs `train`, and takes the process groups down.

    Exits with code 2 and one line when the data or the checkpoint does not fit the arguments; with code 1 and one line
    when the loss or the gradient is no longer finite or the last checkpoint cannot be saved. When a rank dies, hangs or
    raises anything else, all of them end with code 1, and one line names the rank, the iteration and the cause.

    Args:
        program: name of the entry point, in front of that line.
    """
    watch = Watch(args, program, initialize(args).another_connection())
    try:
        train(watch)
    except ValueError as error:
        # All ranks check the same things and meet the same error: the first one says it.
        _leave(f"{program}: error: {error}", code=2, speaks=args.rank == 0)
    except (NonFiniteError, SaveError) as error:
        # The last rank always holds the loss.
        _leave(f"{program}: stopped: {error}", code=1, speaks=args.rank == args.world_size - 1)
    except KeyboardInterrupt:
        _leave(f"{program}: interrupted at iteration {watch.iteration}", code=130, speaks=args.rank == 0)
    except Exception as error:
        if is_lost_connection(error):
            watch.lost_connection()
        else:
            traceback.print_exc()
            watch.failed(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        sys.exit(1)
    finally:
        watch.stop()
        shut_down()


def _leave(line: str, *, code: int, speaks: bool) -> None:
    if speaks:
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)
