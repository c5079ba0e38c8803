"""Saves by megatron-core's distributed checkpoints: written aside, synced, checksummed, made current by one rename."""

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CONFIG_FNAME, CheckpointingConfig
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue, AsyncRequest
from torch.distributed.checkpoint.api import CheckpointException

from dslm_patches.files import write_synced
from megatron.dslm.checkpoints.folder import begin_folder, iteration_folder, publish_folder
from megatron.dslm.checkpoints.manifest import require_sizes, write_manifest
from megatron.dslm.checkpoints.saved_arguments import write_arguments
from megatron.dslm.checkpoints.state import METADATA, TrainState, sharded_models, sharded_rng_state, sharded_state
from megatron.dslm.checkpoints.writer import CommonSave, Writer
from megatron.dslm.distributed.ranks import from_all_ranks, from_first_rank


class SaveError(RuntimeError):
    """A checkpoint could not be written. Those before it are as they were."""


def checkpoint_state(args: Namespace, iteration: int, trainer: TrainState, run: dict[str, Any]) -> dict[str, Any]:
    """Everything needed to go on, in any layout. Call it on all ranks.

    Args:
        run: plain values of the run itself, equal on all ranks, for `load_checkpoint` to give back.
    """
    finish_param_gather(args, trainer.chunks)
    return {
        **sharded_state(trainer, is_loading=False),
        "iteration": iteration,
        "consumed_samples": trainer.consumed_samples,
        "rng_state": sharded_rng_state(),
        "opt_param_scheduler": trainer.scheduler.state_dict(),
        "run": run,
    }


def save_weights(args: Namespace, iteration: int, chunks: list[Any]) -> str:
    """Saves the weights of this rank's model chunks alone; the folder. Call it on all ranks.

    Raises:
        SaveError: on all ranks.
    """
    finish_param_gather(args, chunks)
    return Save(args, iteration, sharded_models(chunks)).write()


def finish_param_gather(args: Namespace, chunks: list[Any]) -> None:
    """Under --overlap-param-gather a rank has the other ranks' part of the update only after the next forward began."""
    if args.overlap_param_gather:
        for chunk in chunks:
            chunk.start_param_sync(force_sync=True)


class Save:
    """One save: what it takes from the run is taken when it is made, and what it writes is written when asked.

    Until it is complete nobody sees it, and if it fails nothing of it stays. All ranks call all of it.

    Args:
        state: of `checkpoint_state`, or sharded weights.

    Attributes:
        folder: where the checkpoint will be.

    Raises:
        SaveError: on all ranks, by every method.
    """

    def __init__(self, args: Namespace, iteration: int, state: dict[str, Any]) -> None:
        self._args, self.iteration = args, iteration
        self.folder = iteration_folder(args.save, iteration)
        self._aside = self._on_first_rank(lambda: begin_folder(args.save, iteration))
        self._common, self._writer = CommonSave.registered(), Writer()
        request = dist_checkpointing.save(
            state, self._aside, sharded_strategy=self._writer, async_sharded_save=True, content_metadata=dict(METADATA)
        )
        # The last of megatron-core's own steps writes metadata.json on rank 0 while the others wait: `_publish` does.
        self._request: AsyncRequest = request._replace(finalize_fns=[request.finalize_fns[0], self._publish])
        self._queue: AsyncCallsQueue | None = None

    def write(self) -> str:
        """Writes it; the folder."""
        self._guarded(self._request.execute_sync)
        return self.folder

    def start(self) -> None:
        """Begins to write it in a forked process of each rank."""
        self._queue = AsyncCallsQueue()
        self._queue.schedule_async_request(self._request)

    def is_done(self, *, wait: bool) -> bool:
        """Whether the started writing is done on all ranks, and with that the checkpoint is there."""
        queue = self._queue
        assert queue is not None
        self._guarded(partial(queue.maybe_finalize_async_calls, blocking=wait))
        return queue.get_num_unfinalized_calls() == 0

    def _publish(self) -> None:
        digests = {name: entry for part in from_all_ranks(self._writer.results.digests) for name, entry in part.items()}

        def complete() -> None:
            for problem in (self._common.problem, self._writer.problem):
                if problem is not None:
                    raise OSError(str(problem))
            config = CheckpointingConfig(self._writer.backend, self._writer.version)
            write_synced(os.path.join(self._aside, CONFIG_FNAME), json.dumps(asdict(config)))
            require_sizes(self._aside, digests)
            write_arguments(self._aside, self._args, self.iteration)
            write_manifest(self._aside, digests)
            publish_folder(self._aside, self._args.save, self.iteration)

        self._on_first_rank(complete)
        self._writer.release()

    def _guarded(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (SaveError, CheckpointException) as error:
            self._writer.release()
            if self._args.rank == 0:
                shutil.rmtree(self._aside, ignore_errors=True)
            if isinstance(error, SaveError):
                raise
            raise SaveError(from_first_rank(_describe_failures(error))) from None

    def _on_first_rank(self, act: Callable[[], Any]) -> Any:
        """What `act` gives on rank 0, on all ranks; its OSError as SaveError on all of them."""
        given, problem = None, None
        if self._args.rank == 0:
            try:
                given = act()
            except OSError as error:
                problem = str(error)
        given, problem = from_first_rank((given, problem))
        if problem is not None:
            raise SaveError(problem)
        return given


def _describe_failures(error: CheckpointException) -> str:
    """What went wrong on which ranks, as the rank knows that collects it."""
    causes = {rank: one[0].__cause__ or one[0] for rank, one in sorted(error.failures.items())}
    messages = {rank: f"{cause}" if isinstance(cause, OSError) else repr(cause) for rank, cause in causes.items()}
    return "; ".join(f"rank {rank}: {cause}" for rank, cause in messages.items())
