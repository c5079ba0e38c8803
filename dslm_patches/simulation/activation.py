"""Simulation of an elementwise activation and of its gradient."""

import itertools

import numpy as np
import torch

from dslm_patches.simulation.draws import Draws, Settings, centred
from dslm_patches.simulation.estimates import Array, Comparison, mean_estimate, variance_estimate
from dslm_patches.simulation.grids import ActivationGrid
from dslm_patches.simulation.parts import PartMoments, own_and_pair, part_products, stack_batches, token_weights
from dslm_patches.simulation.table import Table
from dslm_patches.theory.components import Activation
from dslm_patches.theory.moments import Moments
from dslm_patches.torch_activations import TORCH_ACTIVATIONS

_BATCHES = 32
_SIDE = 20
_FEATURES = _SIDE**2


def simulate_activation(name: str, grid: ActivationGrid, settings: Settings) -> list[Comparison]:
    """The activation `name` over a grid. The shared parts of tokens and gradients are stratified over a batch."""
    table = Table()
    for length, std, r in itertools.product(grid.lengths, grid.stds, grid.correlations):
        y, backward = _base(name, length, std, r, settings)
        x = Moments.correlated(std**2, r)
        out = Activation(name).forward(x)
        points = np.array(list(itertools.product(grid.gradient_stds, grid.gradient_correlations)))
        ones = np.ones(len(points))
        mean, own, pair = (np.outer(column, ones) for column in y.T)
        table.add("x mean", mean_estimate(mean), out.mean * ones)
        table.add("x variance", variance_estimate(mean, own), out.variance * ones)
        weights = token_weights(points[:, 0] ** 2, points[:, 1], length)
        g = [Activation(name).backward(x, Moments.correlated(s**2, rg)) for s, rg in points]
        table.add("g variance", backward.second_moment_of(weights), np.array([one.variance for one in g]))
        table.add("x covariance", variance_estimate(mean, pair), out.covariance * ones)
        table.add("g covariance", backward.pair_moment_of(weights), np.array([one.covariance for one in g]))
        settings.progress(len(points))
    return table.comparisons()


def _base(name: str, length: int, std: float, r: float, settings: Settings) -> tuple[Array, PartMoments]:
    """Batch means of y, y_t^2 and y_t y_u [B, 3], and products of phi'(x) times the parts of the gradient."""
    draws = Draws(settings, f"{name} {length} {std:.6g} {r:.6g}")
    shared_weight, own_weight = token_weights(std**2, r, length)
    outputs, gradients = [], []
    for _ in range(settings.count(_BATCHES, least=16)):
        shared, shared_gradient = (part[:, None, None] for part in draws.stratified_normals(_SIDE))
        x = shared_weight * shared + own_weight * centred(draws.normal(_FEATURES, length, 1))
        x.requires_grad_()
        y = TORCH_ACTIVATIONS[name](x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        y = y.detach()
        outputs.append((y.mean(dtype=torch.float64).item(), *own_and_pair(y, y)))
        gradients.append(part_products([slope * shared_gradient, slope * draws.own_parts(_FEATURES, length, 1)]))
    return np.array(outputs), stack_batches(gradients)
