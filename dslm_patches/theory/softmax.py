"""Softmax over independent Gaussian logits: how concentrated its weights are, and its gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from dslm_patches.theory.activations import quadrature
from dslm_patches.theory.moments import Array, Moments, Value, warn_outside

_LOG_STEP = 0.125
_VARIANCE_STEP = 0.125
LARGEST_LOGIT_VARIANCE = 4.0


@dataclass(frozen=True)
class WeightSums:
    """Expected sums over the weights a_j of a softmax of logits z_j, their weighted mean z.

    Attributes:
        squares: S = E[sum_j a_j^2], how concentrated the weights are: 1/n when uniform.
        cubes: C = E[sum_j a_j^3].
        spread: T = E[tr P^2] = E[sum a_j^2 - 2 sum a_j^3 + (sum a_j^2)^2], P = diag(a) - a a^T the softmax's slope.
        stretch: E[sum_j a_j^2 (z_j - z)^2] / v, what T is along the direction that the weights depend on.
        among_many, spread_among_many: m E[sum_j a_j b_j] and m E[tr P P'] beside a softmax b, of slope P', over the
            same logits and far more, m in all.
        moving_spread: E[v T] / E[v] where the logits' variance v fluctuates; T where it does not.
    """

    squares: Value
    cubes: Value
    spread: Value
    stretch: Value
    among_many: Value
    spread_among_many: Value
    moving_spread: Value

    def map(self, change: Callable[[Value], Value]) -> "WeightSums":
        """Each sum changed alike."""
        return WeightSums(*(change(getattr(self, field.name)) for field in fields(self)))

    @property
    def lean(self) -> Value:
        """E[sum_j a_j^2 (z_j - z)] / v = S - 4 C + 3 E[(sum a_j^2)^2], by parts."""
        return 3.0 * self.spread - 2.0 * self.squares + 2.0 * self.cubes

    @property
    def mean_curvature(self) -> Value:
        """n E[d^2 a_j / dz_j^2] = 1 - 3 S + 2 C."""
        return 1.0 - 3.0 * self.squares + 2.0 * self.cubes

    @property
    def squares_lean(self) -> Value:
        """E[sum_j a_j^2 (z_j^2 - v)] / v^2 = 4 S - 10 C + 6 E[sum a_j^4], by parts; C^2/S in place of the last."""
        return 4.0 * self.squares - 10.0 * self.cubes + 6.0 * self.cubes**2 / self.squares


_INTEGRATED = tuple(field.name for field in fields(WeightSums))[:-1]


@lru_cache(maxsize=1024)
def _integrals(logit_variance: float, keys: tuple[float, ...]) -> Array:
    """The sums but for the last, in their order, for each number of keys, [6, keys].

    1/(sum_j e^{z_j})^k is the integral of t^(k-1)/(k-1)! exp(-t sum_j e^{z_j}) over t > 0, in which the keys factor:
    S = n Int t E[e^{2z - t e^z}] E[e^{-t e^z}]^(n-1) dt, and likewise the third and fourth powers.
    """
    n = np.array(keys)[:, None]
    std = math.sqrt(logit_variance)
    log_t = np.arange(-math.log(keys[-1]) - 12.0 - 4.0 * std, 6.0 + 8.0 * std, _LOG_STEP)
    nodes, weights = quadrature()
    log_scaled = log_t[:, None] + std * nodes[None, :]
    scaled = np.exp(np.minimum(log_scaled, 700.0))
    # moment[k, m] = t^k E[z^m e^{kz} e^{-t e^z}], z in units of its standard deviation
    powers = [(2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (4, 2)]
    moment = {(k, m): np.exp(k * log_scaled - scaled) @ (weights * nodes**m) for k, m in powers}
    log_decay = np.log(np.maximum(np.exp(-scaled) @ weights, 1e-300))
    one, two, three = (
        np.prod([n - i for i in range(k)], axis=0) * np.exp(np.maximum(n - k, 0.0) * log_decay) for k in (1, 2, 3)
    )

    def integral(integrand: Array, power: int) -> Array:
        return integrand.sum(axis=1) * _LOG_STEP / math.factorial(power - 1)

    squares = integral(one * moment[2, 0], 2)
    cubes = integral(one * moment[3, 0], 3)
    spread = squares - 2.0 * cubes + integral(one * moment[4, 0] + two * moment[2, 0] ** 2, 4)
    # sum a_j^2 z_j^2, sum a_j^2 z_j z and sum a_j^2 z^2, by which of their indices are the same key
    mixed = one * moment[3, 2] + two * moment[2, 1] * moment[1, 1]
    pairs = 2.0 * moment[3, 1] * moment[1, 1] + moment[2, 0] * moment[2, 2]
    last = one * moment[4, 2] + two * pairs + three * moment[2, 0] * moment[1, 1] ** 2
    stretch = integral(one * moment[2, 2], 2) - 2.0 * integral(mixed, 3) + integral(last, 4)
    # Beside many keys b_j is e^{z_j} over a constant: one power of t less.
    many = np.exp(-log_t - 0.5 * logit_variance)
    among_many = integral(one * moment[2, 0] * many, 1)
    spread_among_many = among_many - integral(one * moment[3, 0] * many, 2)
    # Logits of variance far above LARGEST_LOGIT_VARIANCE are beyond the quadrature: keep within what sums can be.
    squares = np.clip(squares, 1.0 / np.array(keys), 1.0)
    cubes, spread = np.clip(cubes, squares**2, squares), np.clip(spread, 0.0, squares * (1.0 - squares))
    return np.stack([squares, cubes, spread, np.maximum(stretch, 0.0), among_many, spread_among_many])


def _uniform(keys: Value) -> Array:
    """The same for weights that are all alike."""
    share = 1.0 / np.asarray(keys)
    spread = share * (1.0 - share)
    return np.stack([share, share**2, spread, spread, np.ones_like(share), 1.0 - share])


@lru_cache(maxsize=1024)
def _at_grid_variance(index: int, length: int) -> Array:
    keys = tuple(float(n) for n in range(1, length + 1))
    if index == 0:
        return _uniform(np.array(keys))
    return _integrals(index * _VARIANCE_STEP, keys)


def weight_sums(keys: Value, logit_variance: Value, fluctuation: float = 0.0) -> WeightSums:
    """Sums over the weights of a softmax over independent Gaussian logits; exact, by quadrature (derived).

    S tends to e^v / n for many keys, the form of arXiv 2403.09635.

    Args:
        keys: number of keys n; or an array of such numbers.
        logit_variance: v, variance of a logit across the keys; with an array of keys one for all or one for each,
            and the sums are interpolated linearly between tabulated values 0.125 apart.
        fluctuation: relative standard deviation of v between heads and queries.
    """
    if fluctuation > 0.0:
        above = weight_sums(keys, logit_variance * (1.0 + fluctuation))
        below = weight_sums(keys, logit_variance * (1.0 - fluctuation))
        means = {name: 0.5 * (getattr(above, name) + getattr(below, name)) for name in _INTEGRATED}
        moving = 0.5 * ((1.0 + fluctuation) * above.spread + (1.0 - fluctuation) * below.spread)
        return WeightSums(**means, moving_spread=moving)
    if np.ndim(keys) == 0:
        sums = _uniform(keys) if logit_variance <= 0.0 else _integrals(round(float(logit_variance), 9), (float(keys),))
        values = dict(zip(_INTEGRATED, sums.reshape(-1).tolist(), strict=True))
        return WeightSums(**values, moving_spread=values["spread"])
    n = np.asarray(keys).astype(int)
    length = int(n.max())
    place = np.maximum(np.broadcast_to(logit_variance, n.shape), 0.0) / _VARIANCE_STEP
    left = place.astype(int)
    table = np.array([_at_grid_variance(index, length) for index in range(left.max() + 2)])
    share = place - left
    sums = (1.0 - share) * table[left, :, n - 1].T + share * table[left + 1, :, n - 1].T
    arrays = dict(zip(_INTEGRATED, (one.T for one in sums), strict=True))
    return WeightSums(**arrays, moving_spread=arrays["spread"])


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
