"""Softmax over independent Gaussian logits: how concentrated its weights are, and its gradient."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dslm_patches.theory.activations import quadrature
from dslm_patches.theory.moments import Array, Moments, Value, warn_outside

_LOG_STEP = 0.125
_VARIANCE_STEP = 0.125
LARGEST_LOGIT_VARIANCE = 4.0


@dataclass(frozen=True)
class WeightSums:
    """Expected sums over the weights a_j of a softmax.

    Attributes:
        squares: S = E[sum_j a_j^2], how concentrated the weights are: 1/n when uniform.
        spread: T = E[tr P^2] = E[sum a_j^2 - 2 sum a_j^3 + (sum a_j^2)^2], P = diag(a) - a a^T the softmax's slope.
    """

    squares: Value
    spread: Value


@lru_cache(maxsize=1024)
def _integrals(logit_variance: float, keys: tuple[float, ...]) -> tuple[Array, Array]:
    """S and T for each number of keys.

    1/(sum_j e^{z_j})^k is the integral of t^(k-1)/(k-1)! exp(-t sum_j e^{z_j}) over t > 0, in which the keys factor:
    S = n Int t E[e^{2z - t e^z}] E[e^{-t e^z}]^(n-1) dt, and likewise the third and fourth powers.
    """
    n = np.array(keys)[:, None]
    std = math.sqrt(logit_variance)
    log_t = np.arange(-math.log(keys[-1]) - 12.0 - 4.0 * std, 6.0 + 8.0 * std, _LOG_STEP)
    nodes, weights = quadrature()
    log_scaled = log_t[:, None] + std * nodes[None, :]
    scaled = np.exp(np.minimum(log_scaled, 700.0))
    # moment[k] = t^k E[e^{kz} e^{-t e^z}]
    moment = {k: np.exp(k * log_scaled - scaled) @ weights for k in (2, 3, 4)}
    log_decay = np.log(np.maximum(np.exp(-scaled) @ weights, 1e-300))
    others = np.exp((n - 1.0) * log_decay)
    without_two = np.exp(np.maximum(n - 2.0, 0.0) * log_decay)
    squares = (n * others * moment[2]).sum(axis=1) * _LOG_STEP
    cubes = (n * others * moment[3]).sum(axis=1) * _LOG_STEP / 2.0
    fourth = n * others * moment[4] + n * (n - 1.0) * without_two * moment[2] ** 2
    spread = squares - 2.0 * cubes + fourth.sum(axis=1) * _LOG_STEP / 6.0
    # Logits of variance far above LARGEST_LOGIT_VARIANCE are beyond the quadrature: keep within what sums can be.
    squares = np.clip(squares, 1.0 / np.array(keys), 1.0)
    return squares, np.clip(spread, 0.0, squares * (1.0 - squares))


@lru_cache(maxsize=1024)
def _at_grid_variance(index: int, length: int) -> tuple[Array, Array]:
    keys = tuple(float(n) for n in range(1, length + 1))
    if index == 0:
        uniform = 1.0 / np.array(keys)
        return uniform, uniform * (1.0 - uniform)
    return _integrals(index * _VARIANCE_STEP, keys)


def weight_sums(keys: Value, logit_variance: Value, fluctuation: float = 0.0) -> WeightSums:
    """S and T of a softmax over independent Gaussian logits; exact, by quadrature (derived).

    S tends to e^v / n for many keys, the form of arXiv 2403.09635.

    Args:
        keys: number of keys n; or an array of such numbers.
        logit_variance: v, variance of a logit across the keys; with an array of keys one for all or one for each,
            and S and T are interpolated linearly between tabulated values 0.125 apart.
        fluctuation: relative standard deviation of v between heads and queries.
    """
    if fluctuation > 0.0:
        above = weight_sums(keys, logit_variance * (1.0 + fluctuation))
        below = weight_sums(keys, logit_variance * (1.0 - fluctuation))
        return WeightSums(0.5 * (above.squares + below.squares), 0.5 * (above.spread + below.spread))
    if np.ndim(keys) == 0:
        if logit_variance <= 0.0:
            return WeightSums(1.0 / keys, (1.0 - 1.0 / keys) / keys)
        (squares,), (spread,) = _integrals(round(float(logit_variance), 9), (float(keys),))
        return WeightSums(float(squares), float(spread))
    n = np.asarray(keys).astype(int)
    length = int(n.max())
    place = np.maximum(np.broadcast_to(logit_variance, n.shape), 0.0) / _VARIANCE_STEP
    left = place.astype(int)
    table = np.array([_at_grid_variance(index, length) for index in range(left.max() + 2)])
    share = place - left
    sums = (1.0 - share) * table[left, :, n - 1].T + share * table[left + 1, :, n - 1].T
    squares, spread = sums[0].T, sums[1].T
    return WeightSums(squares, spread)


@dataclass(frozen=True)
class Softmax:
    """Softmax over `length` logits of one token (variance s, correlation r among the logits).

    forward: mean 1/L, variance S/L - 1/L^2 with v = (1-r) s (derived; arXiv 2403.09635 has (e^{(1-r)s} - 1)/L^2);
    backward: sg T/L (derived; arXiv 2403.09635 has e^{(1-r)s} sg/L^2).
    """

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"a softmax is over at least one logit, not {self.length}")

    def _spread(self, x: Moments) -> float:
        variance = (1.0 - x.correlation) * x.mean_variance
        if variance > LARGEST_LOGIT_VARIANCE:
            warn_outside(
                f"softmax: logits of variance {variance:.3g} across the keys; its gradient's formula was checked up to "
                f"{LARGEST_LOGIT_VARIANCE:g}"
            )
        return variance

    def forward(self, x: Moments) -> Moments:
        weight = float(weight_sums(self.length, self._spread(x)).squares) / self.length
        return Moments(weight - 1.0 / self.length**2, mean=1.0 / self.length)

    def backward(self, x: Moments, g: Moments) -> Moments:
        # A gradient that all logits share does not pass: only its own part, (1 - rg) sg, does.
        own = g.mean_variance - g.mean_covariance
        return Moments(own * float(weight_sums(self.length, self._spread(x)).spread) / self.length)
