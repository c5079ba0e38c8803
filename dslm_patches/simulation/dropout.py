"""Simulation of dropout and of its gradient."""

import itertools

import numpy as np

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.estimates import Comparison
from dslm_patches.simulation.grids import DropoutGrid
from dslm_patches.simulation.parts import (
    PartMoments,
    part_products,
    signal_weights,
    stack_batches,
    token_weights,
    under_sign_flips,
)
from dslm_patches.simulation.table import Table
from dslm_patches.theory.components import Dropout
from dslm_patches.theory.moments import Moments

_FEATURES = 16_000


def simulate_dropout(grid: DropoutGrid, settings: Settings) -> list[Comparison]:
    """All of the grid from one set of masks for each (d, L, p): means, variances and correlations are exact weights."""
    table = Table()
    for size, length, p in itertools.product(grid.sizes, grid.lengths, grid.probabilities):
        forward, backward = _base(size, length, p, settings)
        axes = (grid.means, grid.stds, grid.correlations, grid.gradient_stds, grid.gradient_correlations)
        points = np.array(list(itertools.product(*axes)))
        mean, std, r, g_std, rg = points.T
        x, g = signal_weights(mean, std**2, r, length), token_weights(g_std**2, rg, length)
        signals = [Moments.correlated(s**2, one, m) for m, s, one in points[:, :3]]
        out = [Dropout(p).forward(one) for one in signals]
        back = [
            Dropout(p).backward(one, Moments.correlated(s**2, c))
            for one, (s, c) in zip(signals, points[:, 3:], strict=True)
        ]
        table.add("x mean", forward.mean_of(x), np.array([one.mean for one in out]))
        table.add("x variance", forward.variance_of(x), np.array([one.variance for one in out]))
        table.add("g variance", backward.second_moment_of(g), np.array([one.variance for one in back]))
        table.add("x covariance", forward.covariance_of(x), np.array([one.covariance for one in out]))
        table.add("g covariance", backward.pair_moment_of(g), np.array([one.covariance for one in back]))
        settings.progress(len(points))
    return table.comparisons()


def _base(size: int, length: int, p: float, settings: Settings) -> tuple[PartMoments, PartMoments]:
    """Products of the masked parts 1, c, e_t of the signal and c, e_t of the gradient."""
    draws = Draws(settings, f"dropout {size} {length} {p:.6g}")
    forward, backward = [], []
    for _ in range(settings.count(_FEATURES / size, least=16)):
        mask = (draws.uniform(length, size) >= p).to(settings.dtype) / (1.0 - p)
        shared, own = draws.matched_normal(1, size), draws.own_parts(length, size)
        forward.append(under_sign_flips(part_products([mask, mask * shared, mask * own]), fixed=1))
        shared, own = draws.matched_normal(1, size), draws.own_parts(length, size)
        backward.append(under_sign_flips(part_products([mask * shared, mask * own]), fixed=0))
    return stack_batches(forward), stack_batches(backward)
