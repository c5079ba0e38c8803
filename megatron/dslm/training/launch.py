"""From checked arguments to a run that ends on all ranks, and says in one line why it could not go on."""

import multiprocessing
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dslm_patches.errors import UserError
from megatron.dslm.arguments.folders import check_loaded, check_save_is_free
from megatron.dslm.checkpoints.save import SaveError
from megatron.dslm.config.one_line_parser import let_the_first_rank_speak
from megatron.dslm.distributed.initialize import initialize, shut_down
from megatron.dslm.faults.diagnosis import is_lost_connection
from megatron.dslm.faults.stop import StoppedEarly, StopRequest
from megatron.dslm.faults.watchdog import Watchdog
from megatron.dslm.logging.folder_locks import FolderLocks
from megatron.dslm.training.step import NonFiniteError


@dataclass
class Job:
    """What connects a run to the rest of the job."""

    watchdog: Watchdog
    stop: StopRequest


def launch(args: Namespace, program: str, train: Callable[[Job], None]) -> None:
    """Brings this rank up, runs `train`, and takes the process groups down.

    Exits with code 2 and one line when the data or the checkpoint does not fit the arguments; with code 1 and one line
    when the loss or the gradient is no longer finite or the last checkpoint cannot be saved. When a rank dies, hangs or
    raises anything else, all of them end with code 1, and one line names the rank, the iteration and the cause; what a
    rank raised is told once, with its traceback, by that rank.

    Args:
        program: name of the entry point, in front of that line.
    """
    try:
        watchdog = Watchdog(args, program, initialize(args).another_connection())
    except KeyboardInterrupt:
        if args.rank == 0:
            print(f"{program}: interrupted at the start", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        let_the_first_rank_speak()
        if isinstance(error, UserError):
            print(f"{program}: error: {error}", file=sys.stderr)
            sys.exit(2)
        print(f"{_trace(error)}{program}: rank {args.rank}, at the start: {_headline(error)}", file=sys.stderr)
        sys.exit(1)
    code = 0
    stop = StopRequest()
    locks: FolderLocks | None = None
    try:
        locks = FolderLocks(args)
        if args.rank in (0, args.world_size - 1):  # another run may have begun and ended since the flags were checked
            check_save_is_free(args)
            check_loaded(args)
        train(Job(watchdog, stop))
    except BaseException as error:
        code = _end(error, args, watchdog)
    finally:
        stop.close()
        if code:
            _end_children()
        watchdog.stop(failed=code != 0)
        if locks is not None:
            locks.release()
    if code and torch.cuda.is_available():
        # Taking NCCL down would wait for kernels that wait for the other ranks.
        sys.stdout.flush()
        os._exit(code)
    shut_down()
    if code:
        sys.exit(code)


def _end_children() -> None:
    """Python waits for its children at exit, and data loaders ignore the signal that it sends them."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's would raise for a loader that is killed
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _end(error: BaseException, args: Namespace, watchdog: Watchdog) -> int:
    """Says why the run ends, unless another rank does; the exit code."""
    if isinstance(error, UserError):
        # Most mistakes are found by all ranks; one that a single rank finds is told by that one.
        return watchdog.tell(f"error: {error}", 2, speaker=0)
    if isinstance(error, (NonFiniteError, SaveError)):
        return watchdog.tell(f"stopped: {error}", 1, speaker=args.world_size - 1)
    if isinstance(error, KeyboardInterrupt):
        return watchdog.tell(f"interrupted at iteration {watchdog.iteration}", 130)
    if isinstance(error, StoppedEarly):
        return watchdog.tell(str(error), error.code)
    tell = watchdog.lost_connection if is_lost_connection(error) else watchdog.failed
    return tell(_headline(error), _trace(error))


def _headline(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    # A data loader hands its traceback over in the message, which ends with what it was.
    what = f"{lines[0]} {lines[-1]}" if "in DataLoader worker process" in lines[0] else lines[0]
    return f"{type(error).__name__}: {what}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
