"""In which order a data set is gone through: epoch after epoch, each whole, however long the run is."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray


class EpochOrder:
    """Where sample number i of an endless run lies in a data set of `size`: each epoch takes every place once.

    A function of i and the seed alone, so that no order depends on the length of the run, and a resumed run goes on
    with the sample that was next. Memory: one permutation, 4 bytes a sample below 2^32 of them.

    Args:
        size: samples of one epoch.
        shuffle: the places of an epoch, by its number, in its order [size].
    """

    def __init__(self, size: int, shuffle: Callable[[int], NDArray[np.integer]]) -> None:
        self.size, self._shuffle = size, shuffle
        self._epoch = -1
        self._order: NDArray[np.integer] = np.empty(0, dtype=np.uint32)

    def __getitem__(self, number: int) -> int:
        epoch, place = divmod(number, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffle(epoch)
        return int(self._order[place])


def later_epochs_shuffled(size: int, seed: int) -> EpochOrder:
    """The order for a data set that is shuffled itself: the first epoch as it lies, each later one shuffled anew.

    numpy's RandomState, whose numbers stay the same over numpy's versions (NEP 19).
    """
    return EpochOrder(size, partial(_shuffled_later, size, seed))


def _shuffled_later(size: int, seed: int, epoch: int) -> NDArray[np.integer]:
    places: NDArray[np.integer] = np.arange(size).astype(np.uint32 if size <= 1 << 32 else np.int64)
    if epoch:
        np.random.RandomState([seed, epoch]).shuffle(places)
    return places
