"""Examples as micro-batches, padded to their longest sequence, the same on every rank that shares them."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from megatron.core import parallel_state
from torch import Tensor
from torch.utils.data import Dataset

from megatron.dslm.data.batches import MicroBatchSampler, load_batches
from megatron.dslm.data.epoch_order import EpochOrder
from megatron.dslm.tasks.base import Example, Task
from megatron.dslm.tasks.features import encode_example

_WINDOW = 50
"""Batches among which --group-by-length sorts."""
_MULTIPLE = 8
"""Sequences are padded to a multiple of this, which kernels like."""


class Item(NamedTuple):
    """A tokenized example: its number, (ids, segments) of each of its texts, and its label or -1."""

    number: int
    texts: list[tuple[list[int], list[int]]]
    label: float


class TaskDataset(Dataset[Item]):
    """Examples as items, tokenized when they are asked for."""

    def __init__(self, args: Namespace, task: Task, examples: Sequence[Example]) -> None:
        self.examples, self.task, self.args = examples, task, args

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Item:
        example = self.examples[index]
        texts = encode_example(
            self.args.tokenizer, example, self.args.seq_length, cut_first_only=self.task.cut_first_only
        )
        return Item(index, texts, -1.0 if example.label is None else example.label)

    def lengths(self) -> list[int]:
        """Characters of each example, which tell about its tokens without tokenizing."""
        return [max(len(first) + len(second or "") for first, second in one.texts) for one in self.examples]


class ShuffledEpochs(Dataset[Item]):
    """A dataset in the order of training: `epochs` shuffles of it, one after the other, begun again to fill a batch.

    Sample i is a function of i and the seed, so a resumed run goes on with the sample that was next, and a batch may
    span two epochs: no sample is left out.

    Args:
        batch: samples a global batch, for `by_length`.
        by_length: shuffles of batches of samples about equally long, in place of shuffles of samples.
    """

    def __init__(self, dataset: TaskDataset, seed: int, batch: int, *, by_length: bool = False) -> None:
        self.dataset, self.seed, self.batch = dataset, seed, batch
        self._lengths = np.array(dataset.lengths()) if by_length else None
        self._order = EpochOrder(len(dataset), self._shuffle)

    def __getitem__(self, index: int) -> Item:
        return self.dataset[self._order[index]]

    def _shuffle(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.dataset))
        if self._lengths is None:
            return order
        windows = [order[start : start + _WINDOW * self.batch] for start in range(0, len(order), _WINDOW * self.batch)]
        batches = []
        for window in windows:
            by_length = window[np.argsort(self._lengths[window], kind="stable")]
            batches += [by_length[start : start + self.batch] for start in range(0, len(by_length), self.batch)]
        generator.shuffle(batches)
        return np.concatenate(batches)


def collate(args: Namespace, items: Sequence[Item]) -> dict[str, Tensor]:
    """Items as `text`, `types`, `padding_mask` [texts, s], a sample's in a row, and `labels`, `index` [samples]."""
    texts = [text for item in items for text in item.texts]
    multiple = _MULTIPLE * (args.tensor_model_parallel_size if args.sequence_parallel else 1)
    longest = max(len(ids) for ids, _ in texts)
    width = min(-(-longest // multiple) * multiple, args.seq_length)
    ids, types, mask = (np.zeros((len(texts), width), dtype=np.int64) for _ in range(3))
    ids[:] = args.tokenizer.pad
    for row, (tokens, segments) in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        types[row, : len(tokens)] = segments
        mask[row, : len(tokens)] = 1
    return {
        "text": torch.from_numpy(ids),
        "types": torch.from_numpy(types),
        "padding_mask": torch.from_numpy(mask),
        "labels": torch.tensor([item.label for item in items], dtype=torch.float32),
        "index": torch.tensor([item.number for item in items]),
    }


class _EvaluationSampler:
    """Every index once over the data-parallel ranks, in equally many micro-batches each: empty ones repeat index 0.

    Args:
        multiple: of which the number of micro-batches must be one.
    """

    def __init__(self, total: int, size: int, multiple: int) -> None:
        rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        self.batches = -(-total // (size * ranks * multiple)) * multiple
        self._size, self._indices = size, list(range(rank, total, ranks))

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.batches * self._size, self._size):
            yield self._indices[start : start + self._size] or [0]


def training_batches(args: Namespace, dataset: ShuffledEpochs, consumed: int) -> Iterator[dict[str, Tensor]]:
    """This rank's micro-batches from sample `consumed` on, without end."""
    sampler = MicroBatchSampler(
        consumed,
        args.micro_batch_size,
        parallel_state.get_data_parallel_rank(),
        parallel_state.get_data_parallel_world_size(),
    )
    return load_batches(args, dataset, sampler, partial(collate, args))


def evaluation_batches(args: Namespace, dataset: TaskDataset) -> tuple[Iterator[dict[str, Tensor]], int]:
    """This rank's share of all samples as micro-batches, and how many these are."""
    # The interleaved schedule takes a multiple of the stages.
    multiple = args.pipeline_model_parallel_size if args.virtual_pipeline_model_parallel_size else 1
    sampler = _EvaluationSampler(len(dataset), args.micro_batch_size, multiple)
    return load_batches(args, dataset, sampler, partial(collate, args)), sampler.batches
