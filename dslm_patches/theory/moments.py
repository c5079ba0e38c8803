"""The value every formula of the theory maps: mean, variance and token covariance of a signal or of its gradient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Value = float | Array


class OutsideTheoryWarning(UserWarning):
    """A formula was asked for a case outside the domain its error was measured on."""


def warn_outside(message: str) -> None:
    """Says that a prediction is outside its domain of validity."""
    warnings.warn(message, OutsideTheoryWarning, stacklevel=3)


@dataclass(frozen=True)
class Moments:
    """Moments of the features of a sequence of tokens, over features, sequences and draws of the weights.

    Where all positions of a sequence are alike, `variance` and `covariance` are numbers. Where they differ (under a
    causal mask they do), they are arrays over positions: variance [L] and covariance [L, L], of which the diagonal
    is not read.

    Attributes:
        variance: of one feature of one token, its mean subtracted; positive, or zero for a gradient that vanished.
        covariance: of the same feature of two different tokens of one sequence.
        mean: of every feature.
        pair_scatter: variance of the token covariance over the pairs of tokens, where some are more alike than others
            (of one segment, the same word) and the arrays do not say which.
    """

    variance: Value
    covariance: Value = 0.0
    mean: float = 0.0
    pair_scatter: float = 0.0

    def __post_init__(self) -> None:
        if not np.all(np.isfinite(self.variance)) or np.any(np.asarray(self.variance) < 0.0):
            raise ValueError(f"a variance must be positive, not {np.min(self.variance)}")

    @classmethod
    def correlated(cls, variance: float, correlation: float, mean: float = 0.0) -> Moments:
        """Moments with a given token correlation.

        Raises:
            ValueError: a variance that is not positive or a correlation outside [-1, 1].
        """
        if not variance > 0.0:
            raise ValueError(f"a variance must be positive, not {variance}")
        if not -1.0 <= correlation <= 1.0:
            raise ValueError(f"a token correlation must lie in [-1, 1], not {correlation}")
        return cls(variance, correlation * variance, mean)

    @property
    def mean_variance(self) -> float:
        """Variance over all positions."""
        return float(np.mean(self.variance))

    @property
    def mean_covariance(self) -> float:
        """Token covariance over all pairs of different positions."""
        covariance = np.asarray(self.covariance)
        if covariance.ndim == 0:
            return float(covariance)
        length = len(covariance)
        return float((covariance.sum() - np.trace(covariance)) / max(1, length * (length - 1)))

    @property
    def correlation(self) -> float:
        """Mean token covariance over mean variance, as the tracer measures it."""
        return self.mean_covariance / self.mean_variance if self.mean_variance > 0.0 else 0.0

    @property
    def correlations(self) -> Value:
        """Token correlation of each pair of positions."""
        if np.ndim(self.covariance) == 0:
            return float(self.covariance) / float(np.mean(self.variance))
        scale = np.sqrt(self.variance)
        return np.clip(self.covariance / np.multiply.outer(scale, scale), -1.0, 1.0)

    def by_position(self, length: int) -> Moments:
        """The same moments with arrays over `length` positions."""
        if np.ndim(self.covariance) == 2:
            return self
        variance, covariance = np.full(length, self.variance), np.full((length, length), self.covariance)
        return Moments(variance, covariance, self.mean, self.pair_scatter)

    def averaged(self) -> Moments:
        """The same moments as means over positions and pairs of positions."""
        return Moments(self.mean_variance, self.mean_covariance, self.mean, self.pair_scatter)

    def scaled(self, factor: float) -> Moments:
        """Moments of the signal times a number whose square is `factor`."""
        return Moments(
            self.variance * factor, self.covariance * factor, self.mean * factor**0.5, self.pair_scatter * factor**2
        )


def check_correlation(correlation: float, seq_length: int) -> None:
    """Raises ValueError where `seq_length` tokens cannot all have this correlation with each other."""
    lowest = -1.0 / (seq_length - 1) if seq_length > 1 else -1.0
    rounding = 1e-9
    if not lowest - rounding <= correlation <= 1.0 + rounding:
        raise ValueError(
            f"{seq_length} tokens cannot have a correlation of {correlation:g}: it must lie in [{lowest:.4g}, 1]"
        )


def check_dropout(probability: float) -> None:
    """Raises ValueError for a dropout probability outside [0, 1)."""
    if not 0.0 <= probability < 1.0:
        raise ValueError(f"a dropout probability must lie in [0, 1), not {probability:g}")
