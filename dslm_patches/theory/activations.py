"""Second moments and correlation maps of FFN activations for zero-mean Gaussian inputs.

For jointly Gaussian, zero-mean pre-activations x, y of variance s and correlation r the theory needs
E[phi(x)^2] and E[phi(x) phi(y)]. ReLU has both in closed form; every other activation is integrated by
Gauss-Hermite quadrature, which reaches machine precision for smooth functions.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray
QUADRATURE_POINTS = 96


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def _silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": _relu, "gelu": _gelu, "silu": _silu}


@lru_cache(maxsize=1)
def _nodes() -> tuple[Array, Array]:
    """Nodes and weights for the expectation over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_POINTS)
    return nodes, weights / weights.sum()


def _check(activation: str, variance: float) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: known are {', '.join(sorted(ACTIVATIONS))}")
    if not variance > 0.0:
        raise ValueError(f"the variance of the activation's input must be positive, not {variance}")


@lru_cache(maxsize=4096)
def second_moment(activation: str, variance: float) -> float:
    """E[phi(x)^2] for x ~ N(0, variance). ReLU: variance / 2 (arXiv 2403.09635); others by quadrature.

    Raises:
        ValueError: unknown activation or non-positive variance.
    """
    _check(activation, variance)
    if activation == "relu":
        return variance / 2.0
    nodes, weights = _nodes()
    return float(weights @ ACTIVATIONS[activation](math.sqrt(variance) * nodes) ** 2)


@lru_cache(maxsize=65536)
def product_moment(activation: str, variance: float, correlation: float) -> float:
    """E[phi(x) phi(y)] for x, y ~ N(0, variance) with the given correlation.

    ReLU: s/(2 pi) [sqrt(1-r^2) + r (pi - acos r)], the arc-cosine kernel behind arXiv 2403.09635; others by
    two-dimensional quadrature.

    Raises:
        ValueError: unknown activation, non-positive variance or a correlation outside [-1, 1].
    """
    _check(activation, variance)
    if not -1.0 <= correlation <= 1.0:
        raise ValueError(f"a correlation lies in [-1, 1], not {correlation}")
    if activation == "relu":
        angle = math.acos(correlation)
        return variance / (2 * math.pi) * (math.sin(angle) + correlation * (math.pi - angle))
    nodes, weights = _nodes()
    x = math.sqrt(variance) * nodes
    y = math.sqrt(variance) * (correlation * nodes[:, None] + math.sqrt(1.0 - correlation**2) * nodes[None, :])
    phi = ACTIVATIONS[activation]
    return float(weights @ (phi(x)[:, None] * phi(y)) @ weights)


def ffn_gain(activation: str, gated: bool, variance: float) -> float:
    """Second moment of one hidden unit of an FFN whose pre-activations have the given variance.

    Plain FFN: E[phi(v)^2]. Gated (u phi(v), u and v independent and of equal variance s): s E[phi(v)^2].
    """
    gain = second_moment(activation, variance)
    return variance * gain if gated else gain


def ffn_correlation(activation: str, gated: bool, variance: float, correlation: float) -> float:
    """Token correlation after an FFN (before dropout) whose input tokens have the given correlation.

    For a gated unit E[u u'] = r s multiplies the product moment, so the correlation gains a factor r.
    """
    ratio = product_moment(activation, variance, correlation) / second_moment(activation, variance)
    return correlation * ratio if gated else ratio


def balanced_ffn_variance(activation: str, gated: bool, ffn_ratio: float, output_variance: float) -> float:
    """The pre-activation variance s at which an FFN with equal up and down gains has a given output variance.

    With unit-variance input, d w1^2 = d w2^2 = s, the output variance is ffn_ratio * s * ffn_gain(s): solved
    for s by bisection. ReLU with ffn_ratio 4 gives s = sqrt(output_variance / 2), the recipe of arXiv 2403.09635.

    Args:
        ffn_ratio: FFN width over hidden size.
        output_variance: wanted output variance before dropout, positive.

    Raises:
        ValueError: unknown activation, or a ratio or variance that is not positive.
    """
    if not (ffn_ratio > 0.0 and output_variance > 0.0):
        raise ValueError(f"FFN ratio and output variance must be positive, not {ffn_ratio} and {output_variance}")
    if activation == "relu" and not gated:
        return math.sqrt(2.0 * output_variance / ffn_ratio)
    low, high = 1e-9, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        if ffn_ratio * middle * ffn_gain(activation, gated, middle) < output_variance:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
