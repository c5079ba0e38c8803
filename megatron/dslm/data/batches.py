"""From datasets to micro-batches on this rank's device."""

import itertools
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class MicroBatchSampler:
    """Indices of this data-parallel rank's micro-batches, in dataset order from `consumed` on, without end.

    The datasets shuffle themselves. Each step takes the next global batch; micro-batch i of rank d is number
    i * ranks + d in it, so the set of micro-batches does not depend on how many ranks share the work.

    Args:
        consumed: samples used before, by the run that is being resumed.
        micro_batch_size: samples a micro-batch.
        rank, size: data-parallel rank and number of ranks.
    """

    def __init__(self, consumed: int, micro_batch_size: int, rank: int, size: int) -> None:
        self.consumed, self.micro_batch_size = consumed, micro_batch_size
        self.rank, self.size = rank, size

    def __iter__(self) -> Iterator[list[int]]:
        stride = self.micro_batch_size * self.size
        first = self.consumed + self.rank * self.micro_batch_size
        for start in itertools.count(first, stride):
            yield list(range(start, start + self.micro_batch_size))


def batch_iterator(args: Namespace, dataset: Dataset, consumed: int) -> Iterator[dict[str, Tensor]]:
    """Micro-batches of this rank from sample `consumed` on.

    Every rank reads its own: samples are a function of their index and the seed, so tensor- and
    pipeline-parallel ranks see the same ones without a broadcast.
    """
    sampler = MicroBatchSampler(
        consumed,
        args.micro_batch_size,
        parallel_state.get_data_parallel_rank(),
        parallel_state.get_data_parallel_world_size(),
    )
    return load_batches(args, dataset, sampler)


def load_batches(
    args: Namespace, dataset: Dataset, sampler: Any, collate_fn: Callable[..., Any] | None = None
) -> Iterator[dict[str, Tensor]]:
    """The batches of indices that `sampler` gives, loaded by --num-workers processes."""
    on_gpu = torch.cuda.is_available()
    workers = args.num_workers if args.num_workers is not None else default_num_workers(on_gpu)
    return iter(
        DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate_fn,
            num_workers=workers,
            pin_memory=on_gpu,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_signals,
            # Of its own: a loader draws a seed when it starts, and dropout must not depend on how often that is.
            generator=torch.Generator(),
        )
    )


def default_num_workers(on_gpu: bool) -> int:
    """Processes that load a rank's data: on CPU one, where training leaves a core to it, else the rank itself."""
    if on_gpu:
        return 2
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 1 if cores >= 4 else 0


def _ignore_signals(_worker: int) -> None:
    """A scheduler's signals go to workers too, which must not die of them while the last steps are taken."""
    for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)


def next_batch(data_iterator: Iterator[Any], keys: Sequence[str]) -> dict[str, Tensor]:
    """The next micro-batch's tensors of the given keys, each [micro batch, ...], on this rank's device."""
    return to_device(next(data_iterator), keys)


def to_device(batch: dict[str, Tensor], keys: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the given keys on this rank's device."""
    device = torch.cuda.current_device()
    return {key: batch[key].to(device, non_blocking=True) for key in keys}
