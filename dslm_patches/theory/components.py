"""The components of a transformer as maps of moments: `forward` of a signal, `backward` of its gradient.

A component's `backward(x, g)` takes the moments x of its input and g of the gradient at its output, the two
independent, and gives the moments of the gradient at its input. Formulas: arXiv 2403.09635 (authors' code) unless
they are marked derived. All work on numbers and on arrays over positions (see `Moments`), except where said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dslm_patches.theory.activations import (
    first_moment,
    product_moment,
    second_moment,
    slope_product_moment,
    slope_second_moment,
)
from dslm_patches.theory.gaussian_norm import gradient_gains, output_correlation
from dslm_patches.theory.moments import Moments, Value, check_dropout


class Component(Protocol):
    """Anything that maps moments forward and gradients' moments backward."""

    def forward(self, x: Moments) -> Moments:
        """Moments of the output for moments x of the input."""
        ...

    def backward(self, x: Moments, g: Moments) -> Moments:
        """Moments of the gradient at the input for moments g of the gradient at the output."""
        ...


@dataclass(frozen=True)
class Linear:
    """y = W x with independent zero-mean weights. Exact.

    forward: variance d_in w^2 (s + m^2), covariance d_in w^2 (m^2 + cov); backward: both times d_out w^2.
    """

    d_in: int
    d_out: int
    weight_variance: float

    def forward(self, x: Moments) -> Moments:
        gain, shared = self.d_in * self.weight_variance, x.mean**2
        scatter = gain**2 * x.pair_scatter
        return Moments(gain * (x.variance + shared), gain * (x.covariance + shared), pair_scatter=scatter)

    def backward(self, x: Moments, g: Moments) -> Moments:
        return g.scaled(self.d_out * self.weight_variance)


@dataclass(frozen=True)
class Dropout:
    """Independent masks scaled by 1/(1-p). Exact: variance (s + p m^2)/(1-p), mean and covariance unchanged."""

    probability: float

    def __post_init__(self) -> None:
        check_dropout(self.probability)

    def forward(self, x: Moments) -> Moments:
        p = self.probability
        return Moments((x.variance + p * x.mean**2) / (1.0 - p), x.covariance, x.mean, x.pair_scatter)

    def backward(self, x: Moments, g: Moments) -> Moments:
        return Moments(g.variance / (1.0 - self.probability), g.covariance)


@dataclass(frozen=True)
class Activation:
    """An elementwise activation of Gaussian inputs. Exact (closed form or quadrature).

    All positions must have one variance, as they do behind a norm and a linear. Pairs that are more alike than others
    stay so by the slope of the covariance's map, E[phi' phi'] (Price's theorem).
    """

    name: str

    def forward(self, x: Moments) -> Moments:
        s = _one_variance(x)
        mean = first_moment(self.name, s, x.mean)
        return Moments(
            x.variance * 0.0 + second_moment(self.name, s, x.mean) - mean**2,
            product_moment(self.name, s, x.correlations, x.mean) - mean**2,
            mean,
            x.pair_scatter * float(slope_product_moment(self.name, s, x.correlation, x.mean)) ** 2,
        )

    def backward(self, x: Moments, g: Moments) -> Moments:
        s = _one_variance(x)
        return Moments(
            g.variance * slope_second_moment(self.name, s, x.mean),
            g.covariance * slope_product_moment(self.name, s, x.correlations, x.mean),
        )


@dataclass(frozen=True)
class GatedActivation:
    """u phi(v): GEGLU and SwiGLU. u and v are independent, zero-mean and both have the input's moments. Derived.

    forward: second moment s E[phi^2], covariance cov E[phi phi']. backward gives the sum of what arrives at u,
    g phi(v), and at v, g u phi'(v): the linear before them sends both back with weights of equal variance.
    """

    name: str

    def forward(self, x: Moments) -> Moments:
        s, r = _one_variance(x), x.correlation
        slope = product_moment(self.name, s, r) + x.mean_covariance * slope_product_moment(self.name, s, r)
        return Moments(
            x.variance * second_moment(self.name, s),
            x.covariance * product_moment(self.name, s, x.correlations),
            pair_scatter=x.pair_scatter * float(slope) ** 2,
        )

    def backward(self, x: Moments, g: Moments) -> Moments:
        s, r = _one_variance(x), x.correlations
        own = second_moment(self.name, s) + s * slope_second_moment(self.name, s)
        pair = product_moment(self.name, s, r) + x.covariance * slope_product_moment(self.name, s, r)
        return Moments(g.variance * own, g.covariance * pair)


@dataclass(frozen=True)
class LayerNorm:
    """LayerNorm over the features, or RMSNorm (`centred` False) of a zero-mean signal.

    Args:
        hidden_size: features, for the terms of order 1/d of Gaussian features (derived; see docs/theory.md); None
            leaves them out, as is right in a stack, where a token's norm does not scatter like a Gaussian's.
        epsilon: added to the variance under the root.

    Raises:
        ValueError: fewer than two features (RMSNorm: one); from the maps, an input that cannot be scaled; from
            `backward`, exactly three features (RMSNorm: two), for which the gradient's variance is infinite.
    """

    hidden_size: int | None = None
    epsilon: float = 0.0
    centred: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size is not None and self._freedom < 1:
            raise ValueError(f"a norm of {self.hidden_size} features leaves nothing but zeros: it needs more")

    @property
    def _freedom(self) -> int:
        """Degrees of freedom of a token's sample variance."""
        assert self.hidden_size is not None
        return self.hidden_size - int(self.centred)

    def _mean_square(self, x: Moments) -> float:
        return 0.0 if self.centred else x.mean**2

    def _scale(self, x: Moments) -> Value:
        scale = x.variance + self._mean_square(x) + self.epsilon
        if not np.all(scale > 0.0):
            raise ValueError("a norm cannot scale a signal of variance 0 without an epsilon")
        return scale

    def forward(self, x: Moments) -> Moments:
        mean_square, scale = self._mean_square(x), self._scale(x)
        variance = (x.variance + mean_square) / scale
        scatter = x.pair_scatter / float(np.mean(scale)) ** 2
        if self.hidden_size is None or np.ndim(x.covariance):
            pair = scale if np.ndim(scale) == 0 else np.sqrt(np.multiply.outer(scale, scale))
            return Moments(variance, (x.covariance + mean_square) / pair, pair_scatter=scatter)
        return Moments(variance, variance * output_correlation(self._freedom, x.correlation), pair_scatter=scatter)

    def backward(self, x: Moments, g: Moments) -> Moments:
        scale = self._scale(x)
        if self.hidden_size is None or np.ndim(x.covariance):
            pair = scale if np.ndim(scale) == 0 else np.sqrt(np.multiply.outer(scale, scale))
            return Moments(g.variance / scale, g.covariance / pair)
        own, pair = gradient_gains(self._freedom, x.correlation)
        return Moments(g.variance / scale * own, g.covariance / scale * pair)

    def feature_covariance(self) -> float:
        """Covariance of two different features of one token's output, -1/(d-1)."""
        return -1.0 / (self.hidden_size - 1) if self.hidden_size and self.centred else 0.0


@dataclass(frozen=True)
class Chain:
    """Components one after the other."""

    parts: Sequence[Component]

    def forward(self, x: Moments) -> Moments:
        for part in self.parts:
            x = part.forward(x)
        return x

    def backward(self, x: Moments, g: Moments) -> Moments:
        inputs = []
        for part in self.parts:
            inputs.append(x)
            x = part.forward(x)
        for part, before in zip(reversed(self.parts), reversed(inputs), strict=True):
            g = part.backward(before, g)
        return g


@dataclass(frozen=True)
class Residual:
    """x' = skip x + branch f(x), f(x) independent of x: squares of the coefficients add up the moments."""

    branch: Component
    skip_scale: float = 1.0
    branch_scale: float = 1.0

    def forward(self, x: Moments) -> Moments:
        return _weighted_sum(x, self.skip_scale, self.branch.forward(x), self.branch_scale)

    def backward(self, x: Moments, g: Moments) -> Moments:
        return _weighted_sum(g, self.skip_scale, self.branch.backward(x, g), self.branch_scale)


def _weighted_sum(a: Moments, scale_a: float, b: Moments, scale_b: float) -> Moments:
    aa, bb = scale_a**2, scale_b**2
    return Moments(
        aa * a.variance + bb * b.variance,
        aa * a.covariance + bb * b.covariance,
        scale_a * a.mean + scale_b * b.mean,
        # The same pairs are alike in both.
        (aa * math.sqrt(a.pair_scatter) + bb * math.sqrt(b.pair_scatter)) ** 2,
    )


def _one_variance(x: Moments) -> float:
    if np.ndim(x.variance) and np.ptp(x.variance) > 0.05 * np.max(x.variance):
        raise ValueError("an activation's formula needs one variance at all positions: put a norm before it")
    return x.mean_variance
