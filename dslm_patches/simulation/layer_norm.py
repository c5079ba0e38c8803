"""Simulation of LayerNorm and of its gradient."""

import itertools

import numpy as np
import torch

from dslm_patches.simulation.draws import Draws, Settings, centred
from dslm_patches.simulation.estimates import Array, Comparison, Estimate, mean_estimate
from dslm_patches.simulation.grids import LayerNormGrid
from dslm_patches.simulation.parts import PartMoments, own_and_pair, part_products, stack_batches, token_weights
from dslm_patches.simulation.table import Table
from dslm_patches.theory.components import LayerNorm
from dslm_patches.theory.moments import Moments

_FEATURES = 32_000


def simulate_layer_norm(grid: LayerNormGrid, settings: Settings) -> list[Comparison]:
    """All of the grid from one set of draws for each (d, L, r): LayerNorm takes out the mean and the scale exactly."""
    table = Table()
    for size, length in itertools.product(grid.sizes, grid.lengths):
        bases = [_base(size, length, r, settings) for r in grid.correlations]
        norm = LayerNorm(size)
        axes = (grid.gradient_stds, grid.gradient_correlations)
        gradients = np.array(list(itertools.product(*axes)))
        weights, ones = token_weights(gradients[:, 0] ** 2, gradients[:, 1], length), np.ones(len(gradients))
        for mean, std, (r, (y, backward)) in itertools.product(
            grid.means, grid.stds, zip(grid.correlations, bases, strict=True)
        ):
            x = Moments.correlated(std**2, r, mean)
            out = norm.forward(x)
            g = [norm.backward(x, Moments.correlated(s**2, rg)) for s, rg in gradients]
            estimates = mean_estimate(y)
            columns = {
                "x mean": (0, 0.0),
                "x variance": (1, out.variance),
                "x covariance": (2, out.covariance),
                "feature covariance": (3, norm.feature_covariance()),
            }
            for name, (column, predicted) in columns.items():
                estimate = Estimate(estimates.value[column] * ones, estimates.standard_error[column] * ones)
                table.add(name, estimate, predicted * ones)
            variance = backward.second_moment_of(weights).scaled(1.0 / std**2)
            covariance = backward.pair_moment_of(weights).scaled(1.0 / std**2)
            table.add("g variance", variance, np.array([one.variance for one in g]))
            table.add("g covariance", covariance, np.array([one.covariance for one in g]))
            settings.progress(len(gradients))
    return table.comparisons()


def _base(size: int, length: int, r: float, settings: Settings) -> tuple[Array, PartMoments]:
    """Batch means of y, y_t^2, y_t y_u and of products of different features [B, 4]; the gradient's parts."""
    draws = Draws(settings, f"layernorm {size} {length} {r:.6g}")
    shared_weight, own_weight = token_weights(1.0, r, length)
    outputs, gradients = [], []
    for _ in range(settings.count(_FEATURES / size, least=16)):
        x = shared_weight * draws.normal(1, size) + own_weight * centred(draws.normal(length, size))
        # Gradients through the norm are linear: both parts go through one graph.
        x.requires_grad_()
        y = torch.nn.functional.layer_norm(x, (size,), eps=0.0)
        parts = [draws.matched_normal(1, size).expand(length, -1), draws.own_parts(length, size)]
        gradients.append(part_products([torch.autograd.grad(y, x, part, retain_graph=True)[0] for part in parts]))
        y = y.detach()
        features = own_and_pair(y.T, y.T)[1]
        outputs.append((y.mean(dtype=torch.float64).item(), *own_and_pair(y, y), features))
    return np.array(outputs), stack_batches(gradients)
