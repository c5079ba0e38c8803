"""What LayerNorm does to tokens of few features: moments of sample variances and correlations of Gaussian features.

Derived in docs/theory.md. n, the degrees of freedom: hidden size less one for LayerNorm, hidden size for RMSNorm.
"""

import math

import numpy as np


def output_correlation(n: int, correlation: float) -> float:
    """E of the sample correlation of two tokens: (2/n) [G((n+1)/2)/G(n/2)]^2 r 2F1(1/2, 1/2; n/2+1; r^2)."""
    return 2.0 / n * _gamma_ratio(n + 1, n) ** 2 * correlation * hypergeometric(n / 2 + 1, correlation**2)[0]


def gradient_gains(n: int, correlation: float) -> tuple[float, float]:
    """What the variance and the covariance of a gradient are multiplied by, for inputs of variance 1.

    variance: E[(n-1)/(d s^2)] of a token's sample variance s^2; covariance: E[(n-2+p^2)/(d s s')], p the sample
    correlation.

    Raises:
        ValueError: n = 2, where the expectation of 1/s^2 is infinite.
    """
    if n == 1:
        return 0.0, 0.0  # the output is a sign
    if n == 2:
        raise ValueError(
            "the gradient's variance behind a LayerNorm over 3 features (or an RMSNorm over 2) is infinite: "
            "the mean of 1/variance over Gaussian features needs one feature more"
        )
    x = correlation**2
    plain, _ = hypergeometric(n / 2, x)
    overlap = (1.0 - x) * hypergeometric(n / 2, x)[1] + (n - 1) ** 2 / n * x * hypergeometric(n / 2 + 1, x)[1]
    return (n - 1) / (n - 2), 0.5 * _gamma_ratio(n - 1, n) ** 2 * ((n - 2) * plain + 2.0 * overlap)


def hypergeometric(c: float, x: float) -> tuple[float, float]:
    """2F1(1/2, 1/2; c; x) and its derivative by x, for 0 <= x <= 1 and c > 1.

    Euler's integral with t = tanh(y)^2 is the mean of (cosh(y)^2 - x sinh(y)^2)^-1/2 under weights cosh(y)^(2-2c), over
    its value at x = 0: smooth for every x, so that the trapezoid rule has all digits.
    """
    reach = 30.0 / (c - 1.0) + 10.0 / math.sqrt(c)
    y = np.arange(-reach, reach, 0.2 / math.sqrt(c))
    weights, square = np.cosh(y) ** (2.0 - 2.0 * c), np.sinh(y) ** 2
    root = np.sqrt(1.0 + (1.0 - x) * square)
    total = (weights / np.cosh(y)).sum()
    return float((weights / root).sum() / total), float(0.5 * (weights * square / root**3).sum() / total)


def _gamma_ratio(a: float, b: float) -> float:
    """Gamma(a/2) / Gamma(b/2)."""
    return math.exp(math.lgamma(a / 2.0) - math.lgamma(b / 2.0))
