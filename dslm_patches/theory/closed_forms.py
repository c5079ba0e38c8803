"""Closed forms of E[phi(x) phi(y)] and E[phi'(x) phi'(y)] for zero-mean Gaussian x, y of variance s, correlation r.

ReLU and GeLU: arXiv 2403.09635, authors' code, checked by quadrature. Squared ReLU: the arc-cosine kernel of
degree 2 (arXiv 1112.3712).
"""

import math
from collections.abc import Callable

import numpy as np

from dslm_patches.theory.moments import Array

Product = Callable[[float, Array], Array]
TWO_PI = 2.0 * math.pi


def _relu(s: float, r: Array) -> Array:
    """s/(2 pi) [sqrt(1-r^2) + r (pi - acos r)]."""
    angle = np.arccos(r)
    return s / TWO_PI * (np.sin(angle) + r * (math.pi - angle))


def _relu_slope(s: float, r: Array) -> Array:
    """1/4 + asin(r) / (2 pi): 1/2 for a token with itself."""
    return 0.25 + np.arcsin(r) / TWO_PI


def _squared_relu(s: float, r: Array) -> Array:
    """s^2/(2 pi) [3 sin t cos t + (pi - t)(1 + 2 cos^2 t)], t = acos r: 1.5 s^2 for a token with itself."""
    angle = np.arccos(r)
    return s**2 / TWO_PI * (3.0 * np.sin(angle) * r + (math.pi - angle) * (1.0 + 2.0 * r**2))


def _gelu(s: float, r: Array) -> Array:
    """(s/4){r + (2/pi) r asin(r a) + (2s/pi)[s(1-r^2) + 1 + r^2] / [(1+s) sqrt((1+s)^2 - (r s)^2)]}, a = s/(1+s)."""
    a = s / (1.0 + s)
    root = np.sqrt((1.0 + s) ** 2 - (r * s) ** 2)
    last = (2.0 * s / math.pi) * (s * (1.0 - r**2) + 1.0 + r**2) / ((1.0 + s) * root)
    return s / 4.0 * (r + (2.0 / math.pi) * r * np.arcsin(r * a) + last)


def _gelu_slope(s: float, r: Array) -> Array:
    """1/2 + (1/2pi){-acos(r a) + r a [(1+s)(2s+3) - 2(r s)^2] / [(1+s)^2 - (r s)^2]^1.5}, a = s/(1+s)."""
    a = s / (1.0 + s)
    gap = (1.0 + s) ** 2 - (r * s) ** 2
    fraction = r * a * ((1.0 + s) * (2.0 * s + 3.0) - 2.0 * (r * s) ** 2) / gap**1.5
    return 0.5 + (fraction - np.arccos(r * a)) / TWO_PI


PRODUCTS: dict[str, Product] = {"relu": _relu, "squared_relu": _squared_relu, "gelu": _gelu}
SLOPE_PRODUCTS: dict[str, Product] = {
    "relu": _relu_slope,
    "squared_relu": lambda s, r: 4.0 * _relu(s, r),
    "gelu": _gelu_slope,
}
MEANS: dict[str, Callable[[float], float]] = {
    "relu": lambda s: math.sqrt(s / TWO_PI),
    "squared_relu": lambda s: s / 2.0,
    "gelu": lambda s: math.sqrt(s / TWO_PI) * math.sqrt(s / (1.0 + s)),
}


def relu_correlation_approximation(r: Array) -> Array:
    """0.7 r + 0.3 r^2, the authors' short form of ReLU's covariance over its variance (arXiv 2403.09635)."""
    return 0.7 * r + 0.3 * r**2


def ffn_correlation_approximation(r: Array) -> Array:
    """1/pi + r/2 + (1/2 - 1/pi) r^2, the authors' short form of a ReLU FFN's token correlation (arXiv 2403.09635)."""
    return 1.0 / math.pi + r / 2.0 + (0.5 - 1.0 / math.pi) * r**2
