"""Writes the tensors of a checkpoint, and their checksums, in this process or in one forked off it.

The files are torch's and megatron-core's. Their own way of writing starts a manager process a rank, which outlives a
rank that is killed, and forks another process for every file.
"""

import os
import pickle
import queue
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.base import StrategyAction, register_default_strategy
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME, TorchCommonSaveStrategy
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

from megatron.dslm.checkpoints.manifest import digest

FILES_PER_RANK = 2


class Results:
    """Carries a writer's outcome to the rank, by a file that both hold: a pipe would fill and block a forked writer.

    Attributes:
        digests: size and SHA-256 by file name, once `get_nowait` was called.
    """

    def __init__(self) -> None:
        self._file = _shared_file()
        self.digests: dict[str, dict[str, Any]] = {}

    def put(self, outcome: Any, digests: dict[str, dict[str, Any]]) -> None:
        """Leaves the outcome, in whichever process this is."""
        self._file.write(pickle.dumps((outcome, digests)))
        self._file.flush()

    def get_nowait(self) -> Any:
        """What megatron-core asks for: results by file number, or the exception.

        Raises:
            queue.Empty: the writer left none.
        """
        self._file.seek(0)
        try:
            outcome, self.digests = pickle.loads(self._file.read())
        except (EOFError, pickle.UnpicklingError):
            raise queue.Empty from None
        return outcome


def _shared_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # Linux: a full disk does not keep a writer from telling of it
        return os.fdopen(os.memfd_create("results"), "w+b")
    return tempfile.TemporaryFile()


class Writer(TorchDistSaveShardedStrategy):
    """megatron-core's strategy for sharded state, with the writing itself exchanged.

    Attributes:
        results: of the save that was prepared last.
        problem: of rank 0 with the index, which it writes while the others wait: raised there, it would leave them.
    """

    def __init__(self) -> None:
        super().__init__("torch_dist", 1, thread_count=FILES_PER_RANK)
        self.results = Results()
        self.problem: OSError | None = None
        self._writer: Any = None
        filesystem_async._get_write_results_queue = lambda: None

    def _get_save_and_finalize_callbacks(self, writer: Any, save_state_dict_ret: Any) -> AsyncRequest:
        request = super()._get_save_and_finalize_callbacks(writer, save_state_dict_ret)
        self._writer, writer.finish = writer, partial(self._finish, writer.finish)
        if not writer.write_buckets:
            return request
        writer.results_queue = self.results
        transforms = [writer.transforms] if hasattr(writer, "transforms") else []
        # The second argument is what `preload_fn` brings off the GPU.
        return request._replace(async_fn=_write, async_fn_args=(transforms, writer.write_buckets, self.results))

    def release(self) -> None:
        """Lets go of the tensors: writer and method hold each other, and the collector may be long in coming."""
        if self._writer is not None:
            self._writer.write_buckets = None
            self._writer = None

    def _finish(self, finish: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        try:
            finish(*args, **kwargs)
        except OSError as error:
            self.problem = error


def _write(transforms: list[Any], buckets: list[Any], results: Results) -> None:
    with ThreadPoolExecutor(len(buckets)) as pool:
        written = list(pool.map(partial(_write_file, transforms), range(len(buckets)), buckets))
    failure = next((outcome for outcome, _ in written if isinstance(outcome, Exception)), None)
    by_number = dict(enumerate(outcome for outcome, _ in written))
    results.put(failure or by_number, {name: entry for _, (name, entry) in written if entry is not None})


def _write_file(transforms: list[Any], number: int, bucket: Any) -> tuple[Any, tuple[str, dict[str, Any] | None]]:
    """megatron-core's own writing of one file, synced; its results or the exception, and the file's digest."""
    path, name, _ = bucket
    outcomes: queue.Queue[Any] = queue.Queue()
    count: queue.Queue[int] = queue.Queue()
    count.put(number)
    FileSystemWriterAsync.write_preloaded_data(transforms, number, bucket, outcomes, count, use_fsync=True)
    _, outcome = outcomes.get_nowait()
    if isinstance(outcome, RuntimeError):  # torch's writer tells where it stood, not what the disk said
        try:
            free = shutil.disk_usage(os.path.dirname(path)).free >> 20
        except OSError as error:
            return error, (name, None)
        outcome = OSError(f"{name} could not be written whole ({free:,} MB are free): full disk, quota or other limit")
    if isinstance(outcome, Exception):
        return outcome, (name, None)
    try:
        return outcome, (name, digest(path))
    except OSError as error:
        return error, (name, None)


class CommonSave(TorchCommonSaveStrategy):
    """megatron-core's writer of common.pt, which is rank 0's alone.

    An error there must not keep rank 0 from the collectives that follow: it is kept in `problem` instead.
    """

    def __init__(self) -> None:
        super().__init__("torch", 1)
        self.problem: Exception | None = None

    @classmethod
    def registered(cls) -> "CommonSave":
        """A new one, which the next save uses: megatron-core takes it from its registry alone."""
        strategy = cls()
        register_default_strategy(StrategyAction.SAVE_COMMON, "torch", 1, strategy)
        return strategy

    def save_common(self, common_state_dict: Any, checkpoint_dir: str | Path) -> None:
        if torch.distributed.get_rank() != 0:
            return
        try:
            with open(os.path.join(checkpoint_dir, COMMON_STATE_FNAME), "wb") as file:
                torch.save(common_state_dict, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
            self.problem = error
