"""Several data sets as one, each with a share of the samples that no run's length changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from megatron.core.datasets import helpers
from torch.utils.data import Dataset

from megatron.dslm.data.content import BLEND_PERIOD


class Blend(Dataset[Any]):
    """Endless data sets in turn, by weight as megatron-core's blends, or by their sizes.

    Without weights an epoch is one of all of them. With weights each data set goes through its own epochs; the
    shares hold to one sample in 2^20.

    Args:
        datasets: each with `epoch_size`.
        weights: one each, none less than one sample in 2^20; None takes the sizes.

    Attributes:
        epoch_size: samples that there are.
    """

    def __init__(self, datasets: Sequence[Any], weights: Sequence[float] | None) -> None:
        self._datasets = list(datasets)
        sizes = np.array([one.epoch_size for one in datasets], dtype=np.int64)
        self.epoch_size = int(sizes.sum())
        length = self.epoch_size if weights is None else BLEND_PERIOD
        self._which = np.zeros(length, dtype=np.int16)
        self._place = np.zeros(length, dtype=np.int64)
        if weights is None:
            helpers.build_exhaustive_blending_indices(self._which, self._place, sizes, len(sizes))
        else:
            shares = np.array(weights, dtype=np.float64) / sum(weights)
            assert shares.min() * BLEND_PERIOD >= 1, weights
            helpers.build_blending_indices(self._which, self._place, shares, len(shares), length, False)
        self._counts = np.bincount(self._which, minlength=len(sizes))

    def __len__(self) -> int:
        return self.epoch_size

    def __getitem__(self, number: int) -> Any:
        turn, place = divmod(number, len(self._which))
        which = int(self._which[place])
        return self._datasets[which][turn * int(self._counts[which]) + int(self._place[place])]
