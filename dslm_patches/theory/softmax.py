"""Softmax over independent Gaussian logits: how concentrated its weights are, and its gradient."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dslm_patches.theory.activations import quadrature
from dslm_patches.theory.moments import Array, Moments, Value, warn_outside

_LOG_STEP = 0.125
LARGEST_LOGIT_VARIANCE = 4.0


@lru_cache(maxsize=256)
def _laplace(logit_variance: float, most_keys: int) -> tuple[Array, Array, Array]:
    """On a grid of log t: t^2 E[e^{2z} e^{-t e^z}] dlog t, log E[e^{-t e^z}], for z ~ N(0, logit_variance)."""
    std = math.sqrt(logit_variance)
    log_t = np.arange(-math.log(most_keys) - 12.0 - 4.0 * std, 6.0 + 8.0 * std, _LOG_STEP)
    nodes, weights = quadrature()
    scaled = np.exp(log_t[:, None] + std * nodes[None, :])
    decay = np.exp(-scaled)
    with np.errstate(divide="ignore"):
        return (scaled**2 * decay) @ weights * _LOG_STEP, np.log(decay @ weights), log_t


def concentration(keys: Value, logit_variance: float) -> Value:
    """S = E[sum_j a_j^2] of a softmax over `keys` independent Gaussian logits; exact, by quadrature (derived).

    With 1/(sum_j e^{z_j})^2 written as the integral of t exp(-t sum_j e^{z_j}) over t > 0, the expectation factors
    over the keys: S = n Int t E[e^{2z - t e^z}] E[e^{-t e^z}]^(n-1) dt. Tends to e^v / n, the form of arXiv 2403.09635.

    Args:
        keys: number of keys n, or an array of such numbers.
        logit_variance: v, variance of a logit across the keys.
    """
    n = np.asarray(keys, dtype=np.float64)
    if logit_variance <= 0.0:
        return 1.0 / n if n.ndim else float(1.0 / n)
    distinct, back = np.unique(n, return_inverse=True)
    squares, log_decay, _ = _laplace(round(logit_variance, 12), 1 << math.ceil(math.log2(distinct[-1] + 1)))
    powers = np.exp(np.multiply.outer(distinct - 1.0, np.maximum(log_decay, -1e3)))
    values = (distinct * (powers @ squares))[back].reshape(n.shape)
    return values if n.ndim else float(values)


def concentrations(keys: Array, logit_variances: Array) -> Array:
    """`concentration` for arrays of both, interpolated between 17 logit variances."""
    low, high = float(logit_variances.min()), float(logit_variances.max())
    if high - low < 1e-6:
        return np.asarray(concentration(keys, 0.5 * (low + high)))
    grid = np.linspace(low, high, 17)
    table = np.stack([np.asarray(concentration(keys, float(v))) for v in grid])
    place = (logit_variances - low) / (high - low) * 16.0
    left = np.minimum(place.astype(int), 15)
    share, rows = place - left, np.arange(len(keys))
    return (1.0 - share) * table[left, rows] + share * table[left + 1, rows]


def overlap(
    common: Value, keys: Value, other_keys: Value, concentrated: Value, logit_variance: Value, r: Value
) -> Value:
    """O = E[sum_j a_j b_j] of two tokens' softmax weights, whose logits have correlation r across the keys (derived).

    n/(n n') over the n common keys for r = 0 and the concentration for r = 1; between them the excess over uniform
    weights goes as (e^{r v} - 1)/(e^v - 1), right to first order in 1/keys.
    """
    uniform = common / (keys * other_keys)
    share = np.expm1(r * logit_variance) / np.maximum(np.expm1(logit_variance), 1e-300)
    return uniform * (1.0 + np.maximum(np.maximum(keys, other_keys) * concentrated - 1.0, 0.0) * share)


@dataclass(frozen=True)
class Softmax:
    """Softmax over `length` logits of one token (variance s, correlation r among the logits).

    forward: mean 1/L, variance S/L - 1/L^2 with v = (1-r) s (derived; arXiv 2403.09635 has (e^{(1-r)s} - 1)/L^2);
    backward: sg (S/L)(1 + S - 2 e^{2v}/L) (derived; arXiv 2403.09635 has e^{(1-r)s} sg/L^2).
    """

    length: int

    def _spread(self, x: Moments) -> float:
        variance = (1.0 - x.correlation) * x.mean_variance
        if variance > LARGEST_LOGIT_VARIANCE:
            warn_outside(
                f"softmax: logits of variance {variance:.3g} across the keys; its gradient's formula was checked up to "
                f"{LARGEST_LOGIT_VARIANCE:g}"
            )
        return variance

    def forward(self, x: Moments) -> Moments:
        weight = float(concentration(self.length, self._spread(x))) / self.length
        return Moments(weight - 1.0 / self.length**2, mean=1.0 / self.length)

    def backward(self, x: Moments, g: Moments) -> Moments:
        v = self._spread(x)
        squares = float(concentration(self.length, v))
        third = math.exp(2.0 * v) / self.length
        # A gradient that all logits share does not pass: only its own part, (1 - rg) sg, does.
        own = g.mean_variance - g.mean_covariance
        return Moments(own * squares / self.length * (1.0 + squares - 2.0 * third))
