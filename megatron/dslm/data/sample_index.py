"""The index of a data set's samples: built once in a process of its own, kept by what it was made of."""

import contextlib
import ctypes
import errno
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from dslm_patches.errors import UserError
from megatron.dslm.faults.stop import StoppedEarly, StopRequest

_LOOK_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""
_SILENT_SECONDS = 5.0
"""A build that takes longer is said."""


class MissingIndexError(FileNotFoundError):
    """The index of these samples has not been built yet."""


def load_index(path: str) -> NDArray[Any]:
    """A cached array of numbers, memory-mapped: numpy would take pickles in its place, which can run code.

    Raises:
        MissingIndexError: there is none.
        UserError: it is none of numbers, or damaged.
    """
    if not os.path.isfile(path):
        raise MissingIndexError(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise UserError(
            f"--data-cache-path: {os.fspath(path)} is not an index of samples: remove it, and it is made anew"
        ) from None


def build_aside(build: Callable[[str], Any], cache: str, name: str, stop: StopRequest | None = None) -> None:
    """Lets `build` write its files into a new folder, in a forked process, and then moves them into the cache.

    megatron-core's C++ holds Python for as long as it takes: a process of its own can be ended by SIGTERM and Ctrl-C,
    and what a killed one leaves is never taken for a whole index.

    Args:
        build: called with the folder.
        name: of the data, for who waits.
        stop: the run's, whose signals end the build.

    Raises:
        UserError: the cache cannot be written to.
        StoppedEarly: the run was asked to leave.
    """
    _remove_left_over(Path(cache))
    aside = Path(cache) / f"building-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        _in_own_process(lambda: build(str(aside)), name, stop)
        for path in sorted(aside.iterdir()):
            os.replace(path, Path(cache) / path.name)
    except OSError as error:
        if not _is_of_writing(error, str(cache)):
            raise
        raise UserError(f"--data-cache-path {cache}: the index of samples cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_of_writing(error: OSError, cache: str) -> bool:
    """Whether an error tells of the cache: a file in it, or a disk without room, which numpy tells without a name."""
    return str(error.filename or "").startswith(cache) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _remove_left_over(cache: Path) -> None:
    """What builds of this machine left that were killed."""
    for aside in cache.glob(f"building-{socket.gethostname()}-*"):
        pid = aside.name.split("-")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(aside, ignore_errors=True)


def _in_own_process(act: Callable[[], Any], name: str, stop: StopRequest | None) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(act, theirs), daemon=True)
    process.start()
    theirs.close()
    began, said = time.monotonic(), False
    try:
        while not ours.poll(_LOOK_SECONDS):
            if stop is not None:
                stop.leave_if_asked(f"while the index of {name} was built")
            if not said and time.monotonic() - began > _SILENT_SECONDS:
                print(f"building the index of {name} ...", flush=True)
                said = True
        with contextlib.suppress(EOFError):
            failure = ours.recv()
            if failure is not None:
                raise failure
            return
        process.join()
        if process.exitcode == -signal.SIGINT:
            raise KeyboardInterrupt
        if process.exitcode in (-signal.SIGTERM, -signal.SIGUSR1):  # a scheduler's signal goes to all of a job
            raise StoppedEarly(-process.exitcode, f"while the index of {name} was built")
        raise RuntimeError(f"the process that built the index of {name} ended with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()
        ours.close()


def _run(act: Callable[[], Any], result: Connection) -> None:
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_DFL)
    if sys.platform == "linux":  # nobody else ends a build whose rank is gone
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    failure: BaseException | None = None
    try:
        act()
    except Exception as error:
        failure = error
        failure.add_note(traceback.format_exc())
    sys.stdout.flush()
    result.send(failure)


def index_paths(dataset: Any, names: Sequence[str]) -> list[str]:
    """Where the arrays of a megatron-core data set lie, as megatron-core names them."""
    prefix = f"{dataset.unique_description_hash}-{type(dataset).__name__}-{dataset.index_split.name}"
    return [os.path.join(dataset.config.path_to_cache, f"{prefix}-{name}.npy") for name in names]
