"""Simulation of the softmax over one token's logits and of its gradient."""

import itertools
import math

import numpy as np
import torch

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.estimates import Comparison, Estimate, mean_estimate
from dslm_patches.simulation.grids import SoftmaxGrid
from dslm_patches.simulation.table import Table
from dslm_patches.theory.moments import Moments
from dslm_patches.theory.softmax import Softmax

_LOGITS = 6_000_000
_BATCHES = 20


def simulate_softmax(grid: SoftmaxGrid, settings: Settings) -> list[Comparison]:
    """All of the grid; the part of the logits that all share cancels exactly, and the gradient's scale is exact."""
    table = Table()
    for length in grid.lengths:
        spreads = np.array([(1.0 - r) * std**2 for std, r in itertools.product(grid.stds, grid.correlations)])
        bases = _bases(length, spreads, settings)
        for (std, r), base_mean, base_x, base_g in zip(
            itertools.product(grid.stds, grid.correlations), *bases, strict=True
        ):
            x, softmax = Moments.correlated(std**2, r), Softmax(length)
            g_variance = np.array(grid.gradient_stds) ** 2
            ones = np.ones(len(g_variance))
            out = softmax.forward(x)
            forward, backward = mean_estimate(base_x), mean_estimate(base_g)
            mean = mean_estimate(base_mean)
            table.add("x mean", Estimate(mean.value * ones, mean.standard_error * ones), out.mean * ones)
            table.add("x variance", Estimate(forward.value * ones, forward.standard_error * ones), out.variance * ones)
            predicted = [softmax.backward(x, Moments(float(s))).variance for s in g_variance]
            estimate = Estimate(backward.value * g_variance, backward.standard_error * g_variance)
            table.add("g variance", estimate, np.array(predicted))
            settings.progress(len(g_variance))
    return table.comparisons()


def _bases(length: int, spreads: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batch means [spreads, B] of a, of (a - 1/L)^2 and of the squared gradient at the logits, for unit gradients."""
    draws = Draws(settings, f"softmax {length}")
    batches = settings.count(_BATCHES, least=16)
    rows = settings.count(_LOGITS / _BATCHES / length, least=4)
    mean, forward, backward = (np.empty((len(spreads), batches)) for _ in range(3))
    for batch in range(batches):
        z, g = draws.normal(rows, length), draws.normal(rows, length)
        # Normalised over the batch: takes most of the scatter of the logits' own variance out.
        z = z / z.square().mean().sqrt()
        for index, spread in enumerate(spreads):
            a = torch.softmax(math.sqrt(spread) * z, dim=-1)
            mean[index, batch] = a.mean(dtype=torch.float64).item()
            forward[index, batch] = (a - 1.0 / length).square().mean(dtype=torch.float64).item()
            dz = a * (g - (a * g).sum(-1, keepdim=True))
            backward[index, batch] = dz.square().mean(dtype=torch.float64).item()
    return mean, forward, backward
