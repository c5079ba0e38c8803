"""Configurations a second of the simulation beside a naive estimator, component by component, at equal sample count.

The naive estimator draws the tokens of every configuration by the Cholesky factor of their L x L correlation matrix and
takes the token covariance from the L x L sample covariance, one configuration at a time. Both sides use the same
number of weights or sequences a configuration, the same torch and the same threads.

    python benchmarks/simulation.py [--quick]

Prints progress to standard error and one JSON line last.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from report import paired, print_report
from torch import Tensor

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.grids import (
    GRIDS,
    ActivationGrid,
    AttentionGrid,
    DropoutGrid,
    Grid,
    LayerNormGrid,
    LinearGrid,
    SoftmaxGrid,
)
from dslm_patches.simulation.run import SIMULATIONS

LENGTH = 1000


def cholesky(r: float) -> Tensor:
    """Factor of the L x L correlation matrix of tokens of correlation r."""
    return torch.linalg.cholesky(torch.full((LENGTH, LENGTH), r, dtype=torch.float64).fill_diagonal_(1.0)).float()


def moments(y: Tensor) -> tuple[float, float, float]:
    """Mean, variance and mean off-diagonal covariance of y [L, features], from the L x L sample covariance."""
    covariance = torch.cov(y)
    length = len(covariance)
    diagonal = covariance.diagonal().sum()
    return y.mean().item(), (diagonal / length).item(), ((covariance.sum() - diagonal) / (length * (length - 1))).item()


def naive(module: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> None:
    """All five moments of one sequence."""
    x.requires_grad_()
    y = module(x)
    (dx,) = torch.autograd.grad(y, x, g)
    moments(y.detach())
    moments(dx)


def attention(x: Tensor, weights: Tensor, scale: float, p: float) -> Tensor:
    """One head on x [L, d]."""
    query, key, value = (x @ weight.T for weight in weights)
    a = torch.softmax(scale * query @ key.T / math.sqrt(query.shape[-1]), dim=-1)
    return torch.nn.functional.dropout(a, p) @ value


def naive_seconds(component: str, grid: Grid, samples: int) -> float:
    """Seconds the naive estimator takes for one configuration of `samples` sequences.

    The factor is made once; the time of a sequence is measured on a few and multiplied.
    """
    draws = Draws(Settings(), "naive")
    start = time.perf_counter()
    factor = cholesky(grid.correlations[-1])  # type: ignore[attr-defined]
    once = time.perf_counter() - start
    few = min(samples, 40 if component == "softmax" else 6)
    start = time.perf_counter()
    for _ in range(few):
        naive_sequence(component, grid, draws, factor)
    return once + (time.perf_counter() - start) / few * samples


def naive_sequence(component: str, grid: Grid, draws: Draws, factor: Tensor) -> None:
    """One sequence of the naive estimator: tokens, forward, backward, all five moments."""
    size, width = _size(grid), _width(grid)
    if component == "softmax":
        z = (factor @ draws.normal(LENGTH, 1)).T.requires_grad_()
        y = torch.softmax(z, dim=-1)
        (dz,) = torch.autograd.grad(y, z, draws.normal(1, LENGTH))
        y.var().item(), dz.var().item()
        return
    x, g = factor @ draws.normal(LENGTH, size), factor @ draws.normal(LENGTH, width)
    if component == "linear":
        weight = draws.normal(width, size) / math.sqrt(size)
        naive(lambda x: x @ weight.T, x, g)
    elif component == "attention":
        weights = draws.normal(3, width, size) / math.sqrt(size)
        naive(lambda x: attention(x, weights, 0.36, 0.1), x, g)
    else:
        naive(_MODULES[component], x, g)


_MODULES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "layernorm": lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.1),
}


def _size(grid: Grid) -> int:
    if isinstance(grid, LinearGrid):
        return grid.d_in[0]
    return int(grid.sizes[0]) if isinstance(grid, LayerNormGrid | DropoutGrid | AttentionGrid) else 400


def _width(grid: Grid) -> int:
    if isinstance(grid, LinearGrid):
        return grid.d_out[0]
    return grid.head_sizes[0] if isinstance(grid, AttentionGrid) else _size(grid)


def slice_of(component: str) -> tuple[Grid, int]:
    """The published grid at L = 1000 and d = 316, and the sequences of 1000 tokens that each side draws there."""
    grid = GRIDS[component]
    if isinstance(grid, LinearGrid):
        return replace(grid, d_in=(316,), d_out=(316,), lengths=(LENGTH,)), 80_000 // 316
    if isinstance(grid, ActivationGrid):
        return replace(grid, lengths=(LENGTH,)), 32
    if isinstance(grid, LayerNormGrid):
        return replace(grid, sizes=(316,), lengths=(LENGTH,)), 32_000 // 316
    if isinstance(grid, DropoutGrid):
        return replace(grid, sizes=(316,), lengths=(LENGTH,)), 16_000 // 316
    if isinstance(grid, AttentionGrid):
        return replace(grid, sizes=(316,), head_sizes=(64,), lengths=(LENGTH,)), 96
    assert isinstance(grid, SoftmaxGrid)
    return replace(grid, lengths=(LENGTH,)), 6_000_000 // LENGTH


def run(component: str, pairs: int, effort: float) -> dict[str, object]:
    """Median over pairs, run in turn."""
    grid, full_samples = slice_of(component)
    samples = max(4 if component == "attention" else 16, round(full_samples * effort))
    if component == "softmax":
        samples = 20 * max(4, round(full_samples * effort / 20))
    ours, peer = [], []
    for _ in range(pairs):
        start = time.perf_counter()
        SIMULATIONS[component](grid, Settings(effort=effort))
        ours.append(grid.configurations / (time.perf_counter() - start))
        peer.append(1.0 / naive_seconds(component, grid, samples))
        print(f"{component}: {ours[-1]:.3g} against {peer[-1]:.3g} configurations/s", file=sys.stderr, flush=True)
    return {**paired(component, "configurations_per_s", ours, peer), "samples": samples}


def main() -> None:
    """Runs all components."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer draws and one pair: under a minute")
    args = parser.parse_args()
    pairs, effort = (1, 0.05) if args.quick else (5, 0.25)
    results = [run(component, pairs, effort) for component in SIMULATIONS]
    print_report("simulation", results)


if __name__ == "__main__":
    main()
