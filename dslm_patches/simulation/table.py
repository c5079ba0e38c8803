"""Collects a component's estimates and predictions, point by point of its grid, into comparisons."""

from collections.abc import Collection

import numpy as np

from dslm_patches.simulation.estimates import Array, Comparison, Estimate

_SCALES = {
    "x mean": "x variance",
    "x covariance": "x variance",
    "feature covariance": "x variance",
    "g covariance": "g variance",
}


class Table:
    """Columns of estimates and predictions by quantity, filled block by block in the order of the grid."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[Array]] = {}

    def add(self, quantity: str, estimate: Estimate, predicted: Array) -> None:
        """One block of configurations [n]."""
        block = np.stack([np.ravel(estimate.value), np.ravel(estimate.standard_error), np.ravel(predicted)])
        self._blocks.setdefault(quantity, []).append(block)

    def comparisons(self, *, exact: bool = True, relative: Collection[str] = ()) -> list[Comparison]:
        """One comparison a quantity; means and covariances may be scaled by the predicted variance.

        Args:
            exact: as in `Comparison`.
            relative: covariances whose errors are relative to themselves alone.
        """
        table = {name: np.concatenate(blocks, axis=1) for name, blocks in self._blocks.items()}
        return [
            Comparison(
                name,
                Estimate(value, error),
                predicted,
                table[_SCALES[name]][2] if name in _SCALES and name not in relative else None,
                exact,
            )
            for name, (value, error, predicted) in table.items()
        ]
