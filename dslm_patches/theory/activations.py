"""Moments of FFN activations and of their slopes for Gaussian inputs.

For jointly Gaussian pre-activations x, y of mean m, variance s and correlation r the theory needs E[phi(x)],
E[phi(x) phi(y)] and, for gradients, E[phi'(x) phi'(y)]. ReLU, squared ReLU and GeLU have closed forms at m = 0
(`closed_forms`); everything else is integrated by Gauss-Hermite quadrature.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from dslm_patches.theory import closed_forms
from dslm_patches.theory.moments import Array, Value

QUADRATURE_POINTS = 96
_INTERPOLATION_NODES = 33
_ERF = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1.0 + _ERF(x / math.sqrt(2.0)))


def _normal_density(x: Array) -> Array:
    return np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)


Function = Callable[[Array], Array]
ACTIVATIONS: dict[str, Function] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: x * _normal_cdf(x),
    "silu": lambda x: x * _sigmoid(x),
    "squared_relu": lambda x: np.maximum(x, 0.0) ** 2,
}
SLOPES: dict[str, Function] = {
    "relu": lambda x: np.heaviside(x, 0.5),
    "gelu": lambda x: _normal_cdf(x) + x * _normal_density(x),
    "silu": lambda x: _sigmoid(x) * (1.0 + x * (1.0 - _sigmoid(x))),
    "squared_relu": lambda x: 2.0 * np.maximum(x, 0.0),
}


@lru_cache(maxsize=1)
def quadrature() -> tuple[Array, Array]:
    """Nodes and weights for the expectation over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_POINTS)
    return nodes, weights / weights.sum()


def _check(activation: str, variance: float) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: known are {', '.join(sorted(ACTIVATIONS))}")
    if not variance > 0.0:
        raise ValueError(f"the variance of the activation's input must be positive, not {variance}")


@lru_cache(maxsize=4096)
def first_moment(activation: str, variance: float, mean: float = 0.0) -> float:
    """E[phi(x)] for x ~ N(mean, variance).

    Raises:
        ValueError: unknown activation or non-positive variance.
    """
    _check(activation, variance)
    if mean == 0.0 and activation in closed_forms.MEANS:
        return closed_forms.MEANS[activation](variance)
    nodes, weights = quadrature()
    return float(weights @ ACTIVATIONS[activation](mean + math.sqrt(variance) * nodes))


def second_moment(activation: str, variance: float, mean: float = 0.0) -> float:
    """E[phi(x)^2] for x ~ N(mean, variance): the product moment of a token with itself."""
    return float(product_moment(activation, variance, 1.0, mean))


def slope_second_moment(activation: str, variance: float, mean: float = 0.0) -> float:
    """E[phi'(x)^2] for x ~ N(mean, variance)."""
    return float(slope_product_moment(activation, variance, 1.0, mean))


def product_moment(activation: str, variance: float, correlation: Value, mean: float = 0.0) -> Value:
    """E[phi(x) phi(y)] for x, y ~ N(mean, variance) with the given correlation (a number or an array of them).

    Raises:
        ValueError: unknown activation, non-positive variance or a correlation outside [-1, 1].
    """
    return _product(ACTIVATIONS, closed_forms.PRODUCTS, activation, variance, correlation, mean)


def slope_product_moment(activation: str, variance: float, correlation: Value, mean: float = 0.0) -> Value:
    """E[phi'(x) phi'(y)], what an activation does to the covariance of two tokens' gradients.

    Raises:
        ValueError: as `product_moment`.
    """
    return _product(SLOPES, closed_forms.SLOPE_PRODUCTS, activation, variance, correlation, mean)


def _product(
    functions: dict[str, Function],
    closed: dict[str, closed_forms.Product],
    activation: str,
    variance: float,
    correlation: Value,
    mean: float,
) -> Value:
    _check(activation, variance)
    r = np.asarray(correlation, dtype=np.float64)
    if np.any(np.abs(r) > 1.0):
        raise ValueError(f"a correlation lies in [-1, 1], not {r.flat[np.abs(r).argmax()]}")
    if mean == 0.0 and activation in closed:
        result = closed[activation](variance, r)
    elif r.size <= _INTERPOLATION_NODES:
        result = np.vectorize(lambda one: _integral(functions[activation], variance, one, mean), otypes=[float])(r)
    else:
        result = _interpolated(functions[activation], variance, r, mean)
    return result if result.ndim else float(result)


def _integral(phi: Function, variance: float, r: float, mean: float) -> float:
    nodes, weights = quadrature()
    std = math.sqrt(variance)
    x = phi(mean + std * nodes)
    if r == 1.0:
        return float(weights @ x**2)
    y = phi(mean + std * (r * nodes[:, None] + math.sqrt(1.0 - r**2) * nodes[None, :]))
    return float(weights @ (x[:, None] * y) @ weights)


def _interpolated(phi: Function, variance: float, r: Array, mean: float) -> Array:
    """By the polynomial through Chebyshev nodes between the lowest and highest correlation asked for."""
    low, high = float(r.min()), float(r.max())
    middle, half = 0.5 * (low + high), max(0.5 * (high - low), 1e-12)

    nodes = np.polynomial.chebyshev.chebpts1(_INTERPOLATION_NODES)
    values = [_integral(phi, variance, float(np.clip(middle + half * x, -1, 1)), mean) for x in nodes]
    coefficients = np.polynomial.chebyshev.chebfit(nodes, values, _INTERPOLATION_NODES - 1)
    return np.polynomial.chebyshev.chebval((r - middle) / half, coefficients)
