"""Samples as a training run draws them, for test_padding.py."""

import numpy

from megatron.dslm.arguments import parse_args
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.models.bert.model import dataset


def training_samples(argv: list[str]) -> list[dict[str, numpy.ndarray]]:
    """The first training samples of a command line."""
    args = parse_args("bert", argv)
    train_set = build_datasets(args, dataset(args))[0]
    return [train_set[number] for number in range(20)]
