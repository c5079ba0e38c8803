"""Simulation of one attention head and of its gradient.

The scales of values and gradients are exact factors. One set of weights, tokens and gradients serves every
correlation, logit scale and dropout: the parts of x (see `parts`) go through the projections one by one, and the
gradient is linear in its shared and own parts. The moments of the values, and of the gradients brought back by Wv, are
known exactly: their scatter is taken out as a control.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.estimates import Array, Comparison, Estimate, mean_estimate, ratio_estimate
from dslm_patches.simulation.grids import AttentionGrid
from dslm_patches.simulation.parts import own_and_pair, token_weights
from dslm_patches.simulation.table import Table
from dslm_patches.theory.attention import Attention
from dslm_patches.theory.moments import Moments

_WORK = 3e9
"""Multiplications of one projection over all sequences of a (d, d_v, L): decides their number."""


@dataclass(frozen=True)
class _Sequence:
    """Projections of the shared and own parts of a sequence by weights of variance 1/d, and gradients of variance 1."""

    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]
    weights: Tensor
    shared_gradient: Tensor
    own_gradient: Tensor
    mask: Tensor

    def mixed(self, part: tuple[Tensor, Tensor], r: float) -> Tensor:
        """The projection of tokens of correlation r [L, d_v]."""
        shared, own = token_weights(1.0, r, len(part[1]))
        return shared * part[0] + own * part[1]


def simulate_attention(grid: AttentionGrid, settings: Settings) -> list[Comparison]:
    """All of the grid, one head without output projection."""
    table = Table()
    for size, head_size, length in itertools.product(grid.sizes, grid.head_sizes, grid.lengths):
        draws = Draws(settings, f"attention {size} {head_size} {length}")
        least = settings.count(16, least=4)
        count = max(least, settings.count(min(64.0, _WORK / (length * size * head_size))))
        points = list(itertools.product(grid.correlations, grid.query_stds, grid.dropouts))
        axes = (grid.correlations, grid.query_stds, grid.dropouts)
        samples = np.array([_sample(_draw(draws, size, head_size, length), *axes) for _ in range(count)])
        for index, point in enumerate(points):
            _add(table, grid, (size, head_size, length), point, samples[:, index])
            settings.progress(len(grid.value_stds) * len(grid.gradient_stds) * len(grid.gradient_correlations))
    # The published error of this covariance is the relative one alone.
    return table.comparisons(exact=False, relative=("g covariance",))


def _draw(draws: Draws, size: int, head_size: int, length: int) -> _Sequence:
    weights = draws.normal(3, head_size, size) / math.sqrt(size)
    shared, own = draws.matched_normal(1, size), draws.own_parts(length, size)
    query, key, value = [(shared @ weight.T, own @ weight.T) for weight in weights]
    return _Sequence(
        query,
        key,
        value,
        weights.reshape(3 * head_size, size),
        draws.matched_normal(1, head_size),
        draws.own_parts(length, head_size),
        draws.uniform(length, length),
    )


def _sample(
    sequence: _Sequence, correlations: Sequence[float], query_stds: Sequence[float], dropouts: Sequence[float]
) -> Array:
    """Statistics of one sequence at each (r, query std, dropout), the last fastest: see `_statistics`."""
    rows = []
    masks = [(sequence.mask >= p).to(sequence.mask.dtype).div_(1.0 - p) for p in dropouts]
    for r in correlations:
        query, key, value = (sequence.mixed(part, r) for part in (sequence.query, sequence.key, sequence.value))
        logits = query @ key.T / math.sqrt(query.shape[-1])
        at_weights = [gradient @ value.T for gradient in (sequence.shared_gradient, sequence.own_gradient)]
        for query_std in query_stds:
            weights = torch.softmax(query_std**2 * logits, dim=-1)
            squares = weights.square().sum(-1).mean(dtype=torch.float64).item()
            columns = weights.sum(0).square().mean(dtype=torch.float64).item()
            sums = [squares, (columns - squares) / (len(weights) - 1.0)]
            for mask in masks:
                scaled = (query * query_std**2, key * query_std**2, value)
                rows.append(_statistics(sequence, scaled, weights, sums, mask, at_weights))
    return np.array(rows)


def _statistics(
    sequence: _Sequence,
    projections: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    sums: list[float],
    mask: Tensor,
    at_weights: list[Tensor],
) -> list[float]:
    """Output: mean, own, pair; values: own, pair; weights: S, O; gradients: own, pair, control.

    Gradients are those of the shared and of the own part, for unit gradients and unit value weights; the control is
    the mean square of the part brought back by Wv.
    """
    query, key, value = projections
    length, head_size = value.shape
    dropped = weights * mask
    output = dropped @ value
    # The value weights with the other sign are as likely: together they have mean 0 and the same products.
    row = [0.0, *own_and_pair(output, output), *own_and_pair(value, value), *sums]
    for gradient, at_weight in zip((sequence.shared_gradient, sequence.own_gradient), at_weights, strict=True):
        # d loss / d weights goes back through dropout, then through the softmax.
        at_logits = dropped * at_weight
        at_logits -= weights * at_logits.sum(-1, keepdim=True)
        at_logits /= math.sqrt(head_size)
        at_values = dropped.T @ gradient.expand(length, -1)
        at_input = torch.cat([at_logits @ key, at_logits.T @ query, at_values], dim=-1) @ sequence.weights
        back = gradient @ sequence.weights[2 * head_size :]
        row += [*own_and_pair(at_input, at_input), back.square().mean().item()]
    return row


def _add(
    table: Table, grid: AttentionGrid, shape: tuple[int, int, int], point: tuple[float, float, float], samples: Array
) -> None:
    (size, head_size, length), (r, query_std, dropout) = shape, point
    squares, overlap = samples[:, 5:7].mean(axis=0)
    # The output is nearly r + S (1/(1-p) - r) of the values' variance and covariance: known to be 1 and r.
    share = squares * np.array([1.0 / (1.0 - dropout), -1.0]) + np.array([0.0, 1.0])
    control = share[0] * (samples[:, 3] - 1.0) + share[1] * (samples[:, 4] - r)
    pair_control = overlap * (samples[:, 3] - 1.0) + (1.0 - overlap) * (samples[:, 4] - r)
    forward = [mean_estimate(samples[:, 0]), mean_estimate(samples[:, 1] - control)]
    forward.append(mean_estimate(samples[:, 2] - pair_control))
    expected, own_expected = head_size / size, (1.0 - 1.0 / length) * head_size / size
    shared = [ratio_estimate(samples[:, column], samples[:, 9], expected) for column in (7, 8)]
    own_part = [ratio_estimate(samples[:, column], samples[:, 12], own_expected) for column in (10, 11)]
    axes = (grid.value_stds, grid.gradient_stds, grid.gradient_correlations)
    for value_std, g_std, rg in itertools.product(*axes):
        head = Attention(
            size,
            head_size,
            1,
            query_std**2 / size,
            query_std**2 / size,
            value_std**2 / size,
            length,
            dropout=dropout,
        )
        x = Moments.correlated(1.0, r)
        out, g = head.forward(x), head.backward(x, Moments.correlated(g_std**2, rg))
        table.add("x mean", forward[0].scaled(value_std), np.array(out.mean))
        table.add("x variance", forward[1].scaled(value_std**2), np.array(out.variance))
        factor = (value_std * g_std) ** 2
        variance, covariance = (
            _mix(first, second, rg, length).scaled(factor) for first, second in zip(shared, own_part, strict=True)
        )
        table.add("g variance", variance, np.array(g.variance))
        table.add("x covariance", forward[2].scaled(value_std**2), np.array(out.covariance))
        table.add("g covariance", covariance, np.array(g.covariance))


def _mix(shared: Estimate, own: Estimate, correlation: float, length: int) -> Estimate:
    """The shared and the own part's, weighted: their product has mean zero and is left out."""
    first, second = token_weights(1.0, correlation, length) ** 2
    return Estimate(
        first * shared.value + second * own.value,
        np.hypot(first * shared.standard_error, second * own.standard_error),
    )
