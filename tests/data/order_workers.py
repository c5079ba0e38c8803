"""What a rank of the pool finds in the data sets of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron.dslm.arguments import parse_args
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.data.indexed_writer import IndexedDatasetWriter
from megatron.dslm.distributed.initialize import initialize_model_parallel
from megatron.dslm.models.family import family


def write_documents(prefix: Path, documents: Sequence[Sequence[Sequence[int]]]) -> str:
    """A .bin/.idx pair of documents, each a list of sequences of token ids; its prefix."""
    with IndexedDatasetWriter(prefix.with_suffix(".bin"), prefix.with_suffix(".idx"), "H") as writer:
        for document in documents:
            tokens = np.concatenate([np.array(one, dtype=np.uint16) for one in document])
            writer.add(tokens.tobytes(), [len(one) for one in document], [len(document)])
        writer.finish()
    return str(prefix)


def samples(argv: list[str], model: str, count: int, split: int = 0) -> tuple[int, list[Any]]:
    """(samples an epoch, the first `count` samples as bytes) of one split."""
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    dataset = build_datasets(args, family(model).model().dataset(args))[split]
    names = ("text", "labels") if model == "bert" else ("tokens", "labels")
    return dataset.epoch_size, [tuple(np.asarray(dataset[i][name]).tobytes() for name in names) for i in range(count)]


def labels(argv: list[str], model: str, first: int, count: int) -> tuple[int, list[list[int]]]:
    """(samples an epoch, the labels with a loss in each of `count` training samples from `first` on)."""
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    dataset = build_datasets(args, family(model).model().dataset(args))[0]
    found = []
    for number in range(first, first + count):
        sample = dataset[number]
        found.append(np.asarray(sample["labels"])[np.asarray(sample["loss_mask"]) > 0].tolist())
    return dataset.epoch_size, found


def rows(argv: list[str], first: int, count: int) -> tuple[int, list[tuple[int, ...]]]:
    """(samples an epoch, the sentences of each of `count` BERT samples from `first` on)."""
    args = parse_args("bert", argv)
    initialize_model_parallel(args)
    dataset = build_datasets(args, family("bert").model().dataset(args))[0]
    return dataset.epoch_size, [tuple(map(int, dataset.sample_index[i][:2])) for i in range(first, first + count)]
