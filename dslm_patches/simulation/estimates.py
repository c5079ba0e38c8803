"""From independent batches of draws to an estimate with a standard error, and to a comparison with the theory."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """Monte-Carlo estimates of one quantity at every configuration, and their standard errors."""

    value: Array
    standard_error: Array

    def scaled(self, factor: Array | float) -> "Estimate":
        """The estimate of the quantity times an exactly known factor, by broadcasting."""
        return Estimate(self.value * factor, self.standard_error * np.abs(factor))


def mean_estimate(batches: Array) -> Estimate:
    """Mean over independent batches [B, ...] and its standard error."""
    count = len(batches)
    return Estimate(batches.mean(axis=0), batches.std(axis=0, ddof=1) / np.sqrt(count))


def variance_estimate(mean: Array, second: Array) -> Estimate:
    """E[y^2] - E[y]^2 from batch means of y and of y^2 [B, ...]; the error to first order in the batches' scatter.

    Also a covariance, when `second` holds batch means of y y'. The bias of the squared mean, its variance over the
    batches, is taken out.
    """
    center = mean.mean(axis=0)
    values = second - 2.0 * center * mean
    estimate = mean_estimate(values)
    bias = mean.var(axis=0, ddof=1) / len(mean)
    return Estimate(estimate.value + center**2 + bias, estimate.standard_error)


def ratio_estimate(batches: Array, control: Array, expected: Array | float) -> Estimate:
    """Mean of `batches` [B, ...] by way of a control [B, ...] that is nearly proportional to it and known exactly.

    The estimate is expected x mean(batches) / mean(control), its bias of order 1/B of the batches' scatter around
    proportionality; the error is that scatter's.
    """
    ratio = batches.mean(axis=0) / control.mean(axis=0)
    residual = mean_estimate(batches - ratio * control)
    return Estimate(ratio * expected, residual.standard_error / control.mean(axis=0) * expected)


@dataclass(frozen=True)
class Comparison:
    """One quantity of one component over a grid: simulated against predicted.

    Attributes:
        simulated: estimates over the grid's configurations.
        predicted: the theory's values.
        scale: predicted variance, in which errors of means and covariances may be counted; None for variances.
        exact: the formula holds without approximation, so that z must be standard normal.
    """

    quantity: str
    simulated: Estimate
    predicted: Array
    scale: Array | None = None
    exact: bool = True

    @property
    def errors(self) -> Array:
        """Percent error of the prediction, as published: relative to the actual value or, if smaller, to `scale`."""
        gap = np.abs(self.simulated.value - self.predicted)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(gap == 0.0, 0.0, gap / np.abs(self.simulated.value))
            if self.scale is not None:
                relative = np.fmin(relative, gap / self.scale)
        return 100.0 * relative

    @property
    def z(self) -> Array:
        """Distance in standard errors; where both the estimate and the prediction are exact, 0."""
        gap = self.simulated.value - self.predicted
        # What float64 sums leave of a quantity that is the same in every draw is no Monte-Carlo error.
        rounding = 1e-6 * np.maximum(np.abs(self.predicted), 1e-30 if self.scale is None else self.scale)
        error = np.maximum(self.simulated.standard_error, rounding)
        return gap / error

    def percentiles(self) -> tuple[float, float, float]:
        """Percent error at the 50th, 90th and 99th percentile."""
        return tuple(float(x) for x in np.percentile(self.errors, (50, 90, 99)))  # type: ignore[return-value]
