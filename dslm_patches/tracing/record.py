"""What was measured in one traced step, as plain arrays; needs neither torch nor megatron-core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dslm_patches.errors import UserError
from dslm_patches.tracing.names import DIRECTIONS

Array = np.ndarray
QUANTITIES = ("mean", "variance", "rms", "absolute_maximum", "correlation", "non_finite", "count")
WEIGHT_QUANTITIES = ("norm", "variance", "gradient_norm", "gradient_variance", "update_ratio")


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of one site's tensor over the whole global batch, all arrays [places], NaN where nothing was measured.

    Attributes:
        mean, variance, rms: of all elements; the variance is centred and divides by their number.
        absolute_maximum: infinite where an element is not finite.
        correlation: of the same feature of two different tokens of one sequence, in the mean over pairs of tokens:
            (sum over sequences of |sum_t x_t|^2 - sum_t |x_t|^2) / (T (T-1) d), over the variance, x centred.
        non_finite: number of elements that are infinite or NaN.
        count: number of elements.
    """

    mean: Array
    variance: Array
    rms: Array
    absolute_maximum: Array
    correlation: Array
    non_finite: Array
    count: Array

    @classmethod
    def from_sums(cls, sums: Array, maximum: Array) -> SiteStatistics:
        """From rows of `dslm_patches.tracing.sums.FIELDS` [places, fields] and maxima [places]."""
        count, total, squares, token_squares, count_tokens, non_finite = sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / count
            deviation = np.maximum(squares - total * mean, 0.0)
            tokens = count_tokens / count
            between = token_squares - tokens * total * mean - deviation
            correlation = np.where(tokens > 1.0, between / ((tokens - 1.0) * deviation), np.nan)
            return cls(
                mean=mean,
                variance=deviation / count,
                rms=np.sqrt(squares / count),
                absolute_maximum=np.where(count > 0.0, maximum, np.nan),
                correlation=correlation,
                non_finite=non_finite,
                count=count,
            )


@dataclass(frozen=True)
class WeightStatistics:
    """One weight of every layer, arrays [layers], NaN where there is none or nothing was measured.

    A frozen weight has no gradient and an update ratio of 0.

    Attributes:
        norm, variance: of the weight before the update; the variance is centred, the norm infinite where an element
            is not finite.
        gradient_norm, gradient_variance: of the gradient of the mean loss of the global batch, before clipping.
        update_ratio: norm of the update over the norm of the weight.
    """

    norm: Array
    variance: Array
    gradient_norm: Array
    gradient_variance: Array
    update_ratio: Array

    @classmethod
    def from_sums(cls, sums: Array) -> WeightStatistics:
        """From rows of `dslm_patches.tracing.weights.WEIGHT_FIELDS`, [layers, fields]."""
        count, total, squares, gradients, gradient_total, gradient_squares, update_squares, updates = sums.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                norm=_norm(squares, count),
                variance=np.maximum(squares / count - (total / count) ** 2, 0.0),
                gradient_norm=_norm(gradient_squares, gradients),
                gradient_variance=np.maximum(gradient_squares / gradients - (gradient_total / gradients) ** 2, 0.0),
                update_ratio=np.where(updates > 0.0, np.sqrt(update_squares / squares), np.nan),
            )


@dataclass(frozen=True)
class Site:
    """One site at its places.

    Attributes:
        layers: number of the layer of each place, from 1; 0 below the layers and num_layers + 1 above them.
    """

    layers: tuple[int, ...]
    activation: SiteStatistics
    gradient: SiteStatistics


@dataclass(frozen=True)
class TraceRecord:
    """All that was measured in one step, the same on every rank.

    Attributes:
        iteration: number of the step, from 1.
        sites: by name; "layer" is the output of the transformer layers.
        weights: by the parameter's name in its layer.
    """

    iteration: int
    sites: dict[str, Site]
    weights: dict[str, WeightStatistics] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain lists in full precision, null for what is not a finite number."""
        return {
            "iteration": self.iteration,
            "sites": {
                name: {
                    "layers": list(site.layers),
                    **{way: _lists(getattr(site, way), QUANTITIES) for way in DIRECTIONS},
                }
                for name, site in self.sites.items()
            },
            "weights": {name: _lists(one, WEIGHT_QUANTITIES) for name, one in self.weights.items()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TraceRecord:
        """The inverse of `as_json`, null as NaN.

        Raises:
            UserError: anything else than what `as_json` gives.
        """
        try:
            sites = {
                name: Site(
                    tuple(int(number) for number in one["layers"]),
                    *(SiteStatistics(**_arrays(one[way], QUANTITIES)) for way in DIRECTIONS),
                )
                for name, one in content["sites"].items()
            }
            weights = {
                name: WeightStatistics(**_arrays(one, WEIGHT_QUANTITIES)) for name, one in content["weights"].items()
            }
            return cls(int(content["iteration"]), sites, weights)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a traced step ({type(error).__name__}: {error})") from None


def _norm(squares: Array, count: Array) -> Array:
    return np.where(count > 0.0, np.nan_to_num(np.sqrt(squares), nan=np.inf, posinf=np.inf), np.nan)


def _lists(statistics: Any, names: tuple[str, ...]) -> dict[str, list[float | None]]:
    return {
        name: [float(value) if np.isfinite(value) else None for value in getattr(statistics, name)] for name in names
    }


def _arrays(content: dict[str, Any], names: tuple[str, ...]) -> dict[str, Array]:
    return {name: np.array([np.nan if v is None else v for v in content[name]], dtype=np.float64) for name in names}
