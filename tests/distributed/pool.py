"""A pool of gloo ranks that stays up for a test session and runs functions by name.

Starting Python with torch and megatron-core costs seconds a process, so the processes are kept, and each call
gets fresh process groups in them. See `RankPool.run` for what a test does with it.
"""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import coverage
import psutil

from tests.distributed.worker import Call, Reply, serve

MAX_RANKS = 8
MOST_THREADS = 200
# What a rank may still take to notice that another one failed, before it counts as hung.
GRACE_SECONDS = 5.0
LOG_TAIL_CHARACTERS = 3000


class RankError(AssertionError):
    """A rank raised, died or ran out of time; `rank` says which, the message holds its traceback."""

    def __init__(self, rank: int, message: str):
        super().__init__(f"rank {rank}: {message}")
        self.rank = rank


class RankPool:
    """Up to `MAX_RANKS` processes, each started when a call first needs it.

    Attributes:
        measured: whether coverage, where it is on, is of what the ranks run now.
    """

    def __init__(self) -> None:
        self._processes: dict[int, BaseProcess] = {}
        self._connections: dict[int, Connection] = {}
        self.measured = True
        self._log_directory = tempfile.TemporaryDirectory(prefix="ranks-")
        atexit.register(self.close)

    def run(
        self,
        world_size: int,
        function: str,
        *,
        layout: dict[str, Any] | None = None,
        process_group: bool = True,
        timeout: float = 120.0,
        **kwargs: Any,
    ) -> list[Any]:
        """Run a function on ranks 0 to `world_size` - 1 and return what each returned.

        Each rank has gloo process groups of its own for this call, seeds set to 1234, and the variables that
        torchrun sets. Everything that megatron-core keeps globally is reset after the call.

        Args:
            world_size: number of ranks, at most `MAX_RANKS`.
            function: "package.module:name", or "path/to/file.py:name".
            layout: arguments of `parallel_state.initialize_model_parallel`, called first if given, and
                followed by `model_parallel_cuda_manual_seed(1234)`.
            process_group: False leaves `init_process_group` to the function, as a launcher would.
            timeout: seconds for the call, not counting the start of processes.
            kwargs: arguments of the function; they and the results are pickled.

        Raises:
            RankError: a rank raised, died or timed out; the other ranks are free again, or started anew.
        """
        assert 1 <= world_size <= MAX_RANKS, f"world_size {world_size} is not within 1..{MAX_RANKS}"
        try:
            replies, failed = self._answers(world_size, function, kwargs, layout, process_group, timeout)
        except BaseException:  # Ctrl-C, or the test's own limit: replies that nobody waits for are not the next call's
            self._kill(set(self._processes))
            raise
        if failed:
            rank, message = failed[0]
            raise RankError(rank, f"{message}\n(calling {function} on {world_size} ranks)")
        return [replies[rank].result for rank in range(world_size)]

    def _answers(
        self,
        world_size: int,
        function: str,
        kwargs: dict[str, Any],
        layout: dict[str, Any] | None,
        process_group: bool,
        timeout: float,
    ) -> tuple[dict[int, Reply], list[tuple[int, str]]]:
        """Replies by rank, and the failures, of one call."""
        from torch.distributed import TCPStore

        self._retire_crowded()
        self._start(world_size)
        # A store of its own for each call: process groups of different calls use the same keys.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank in range(world_size):
            call = Call(function, kwargs, rank, world_size, store.port, layout, process_group, timeout, self.measured)
            self._connections[rank].send_bytes(pickle.dumps(call))
        return self._collect(world_size, timeout)

    def close(self) -> None:
        """Stop all ranks; a later call starts them again."""
        for connection in self._connections.values():
            # A rank that died has closed its end.
            with contextlib.suppress(OSError):
                connection.send_bytes(pickle.dumps(None))
        for process in self._processes.values():
            process.join(timeout=GRACE_SECONDS)
        self._kill(set(self._processes))

    def _retire_crowded(self) -> None:
        """Stops ranks in which threads of earlier calls have piled up.

        A process group that something still holds keeps its threads, which wake up all the time: two thousand of them
        cost more than half a core.
        """
        threads = [
            psutil.Process(process.pid).num_threads() for process in self._processes.values() if process.is_alive()
        ]
        if max(threads, default=0) > MOST_THREADS:
            self.close()

    def _start(self, world_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        started = [rank for rank in range(world_size) if rank not in self._processes]
        for rank in started:
            ours, theirs = context.Pipe()
            # Not daemonic: the checkpoint writer starts processes of its own.
            measured = coverage.Coverage.current() is not None
            process = context.Process(target=serve, args=(theirs, str(self._log(rank)), measured), daemon=False)
            with _cpu_only_environment():
                process.start()
            theirs.close()
            self._processes[rank] = process
            self._connections[rank] = ours
        for rank in started:
            try:
                self._connections[rank].recv_bytes()
            except EOFError:
                message = self._describe_death(rank)
                self._kill(set(started))
                raise RankError(rank, message) from None

    def _collect(self, world_size: int, timeout: float) -> tuple[dict[int, Reply], list[tuple[int, str]]]:
        """Replies by rank, and the failures in the order in which they came in."""
        deadline = time.monotonic() + timeout
        replies: dict[int, Reply] = {}
        failed: list[tuple[int, str]] = []
        open_ranks = set(range(world_size))
        lost = set()
        while open_ranks:
            ready = wait([self._connections[r] for r in open_ranks], max(0.0, deadline - time.monotonic()))
            if not ready:
                lost |= open_ranks
                failed += [(r, f"no answer within {timeout:g} s\n{self._log_tail(r)}") for r in open_ranks]
                break
            for rank in [r for r in open_ranks if self._connections[r] in ready]:
                open_ranks.discard(rank)
                try:
                    replies[rank] = pickle.loads(self._connections[rank].recv_bytes())
                except (EOFError, ConnectionResetError):
                    lost.add(rank)
                    failed.append((rank, self._describe_death(rank)))
                    continue
                if replies[rank].error is not None:
                    failed.append((rank, str(replies[rank].error)))
            if failed:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        self._kill(lost)
        return replies, failed

    def _describe_death(self, rank: int) -> str:
        self._processes[rank].join(timeout=GRACE_SECONDS)
        return f"died with exit code {self._processes[rank].exitcode}\n{self._log_tail(rank)}"

    def _kill(self, ranks: set[int]) -> None:
        """End these ranks; the next call that needs them starts them anew."""
        for rank in ranks:
            process = self._processes.pop(rank)
            assert process.pid is not None
            # The rank leads a process group, so that its checkpoint writers go with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            self._connections.pop(rank).close()

    def _log(self, rank: int) -> Path:
        return Path(self._log_directory.name) / f"rank{rank}.log"

    def _log_tail(self, rank: int) -> str:
        return self._log(rank).read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]


@contextlib.contextmanager
def _cpu_only_environment() -> Iterator[None]:
    """Environment that a rank starts with: no GPU, and gloo on the loopback interface."""
    saved = dict(os.environ)
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.update(CUDA_VISIBLE_DEVICES="", GLOO_SOCKET_IFNAME=loopback, OMP_NUM_THREADS="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
