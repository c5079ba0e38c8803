"""Simulation of y = W x and of its gradient."""

import itertools

import numpy as np
import torch

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.estimates import Array, Comparison
from dslm_patches.simulation.grids import LinearGrid
from dslm_patches.simulation.parts import (
    PartMoments,
    part_products,
    signal_weights,
    stack_batches,
    token_weights,
    under_sign_flips,
)
from dslm_patches.simulation.table import Table
from dslm_patches.theory.components import Linear
from dslm_patches.theory.moments import Moments

_FEATURES = 80_000
QUANTITIES = ("x mean", "x variance", "g variance", "x covariance", "g covariance")


def simulate_linear(grid: LinearGrid, settings: Settings) -> list[Comparison]:
    """All of the grid from one set of unit weights for each (d_in, d_out, L): the other axes are exact scales of it."""
    table = Table()
    for d_in, d_out, length in itertools.product(grid.d_in, grid.d_out, grid.lengths):
        forward, backward = _base(d_in, d_out, length, settings)
        axes = (grid.means, grid.stds, grid.correlations, grid.gradient_stds, grid.gradient_correlations)
        points = np.array(list(itertools.product(*axes, grid.weight_stds)))
        mean, std, r, g_std, rg, weight = points.T
        x, g = signal_weights(mean, std**2, r, length), token_weights(g_std**2, rg, length)
        w2 = weight**2 / d_in
        estimates = (
            forward.mean_of(x).scaled(np.sqrt(w2)),
            forward.variance_of(x).scaled(w2),
            backward.second_moment_of(g).scaled(w2),
            forward.covariance_of(x).scaled(w2),
            backward.pair_moment_of(g).scaled(w2),
        )
        predicted = _predicted(d_in, d_out, points)
        for name, estimate, prediction in zip(QUANTITIES, estimates, predicted.T, strict=True):
            table.add(name, estimate, prediction)
        settings.progress(len(points))
    return table.comparisons()


def _base(d_in: int, d_out: int, length: int, settings: Settings) -> tuple[PartMoments, PartMoments]:
    """Products of W 1, W c, W e_t (forward) and W^T c, W^T e_t (backward) for weights of variance 1."""
    draws = Draws(settings, f"linear {d_in} {d_out} {length}")
    forward, backward = [], []
    for _ in range(settings.count(_FEATURES / min(d_in, d_out))):
        weight = draws.normal(d_out, d_in)
        x = torch.cat([torch.ones_like(weight[:1]), draws.matched_normal(1, d_in), draws.own_parts(length, d_in)])
        y = x @ weight.T
        forward.append(under_sign_flips(part_products([y[:1], y[1:2], y[2:]]), fixed=0))
        g = torch.cat([draws.matched_normal(1, d_out), draws.own_parts(length, d_out)]) @ weight
        backward.append(under_sign_flips(part_products([g[:1], g[1:]]), fixed=0))
    return stack_batches(forward), stack_batches(backward)


def _predicted(d_in: int, d_out: int, points: Array) -> Array:
    rows = []
    for mean, std, r, g_std, rg, weight in points:
        layer = Linear(d_in, d_out, weight**2 / d_in)
        x = Moments.correlated(std**2, r, mean)
        y, g = layer.forward(x), layer.backward(x, Moments.correlated(g_std**2, rg))
        rows.append((y.mean, y.variance, g.variance, y.covariance, g.covariance))
    return np.array(rows)
