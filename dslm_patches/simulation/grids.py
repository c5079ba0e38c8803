"""The grids over which arXiv 2403.09635 checked its closed forms, and the errors it published (authors' code)."""

from dataclasses import dataclass, fields

import numpy as np

from dslm_patches.theory.moments import check_correlation


def _log(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(float(x) for x in np.logspace(low, high, count))


def _steps(count: int) -> tuple[float, ...]:
    """`count` values from 0 up to, not including, 1."""
    return tuple(i / count for i in range(count))


_STDS = _log(-0.5, 0.5, 3)
_SIZES = (100, 316, 1000)
_LENGTHS = (100, 1000)


@dataclass(frozen=True)
class Grid:
    """Axes of a component's grid, in the order of its configurations: the last axis runs fastest.

    Raises:
        ValueError: fewer than two tokens, or a correlation that so many cannot have.
    """

    def __post_init__(self) -> None:
        axes = vars(self)
        for length in axes["lengths"]:
            if length < 2:
                raise ValueError(f"a correlation is between at least two tokens, not {length}")
            for correlation in (*axes["correlations"], *axes.get("gradient_correlations", ())):
                check_correlation(correlation, length)

    @property
    def configurations(self) -> int:
        """Number of points of the grid."""
        return int(np.prod([len(getattr(self, axis.name)) for axis in fields(self)]))

    def corners(self) -> "Grid":
        """The same grid with the first and last value of each axis alone: what --grid quick runs."""
        axes = {axis.name: getattr(self, axis.name) for axis in fields(self)}
        return type(self)(**{name: values[:: max(1, len(values) - 1)] for name, values in axes.items()})


@dataclass(frozen=True)
class LinearGrid(Grid):
    """y = W x; `weight_stds` times sqrt(d_in)."""

    d_in: tuple[int, ...] = _SIZES
    d_out: tuple[int, ...] = _SIZES
    lengths: tuple[int, ...] = _LENGTHS
    means: tuple[float, ...] = _log(-1, 1, 3)
    stds: tuple[float, ...] = _STDS
    correlations: tuple[float, ...] = _steps(3)
    gradient_stds: tuple[float, ...] = _STDS
    gradient_correlations: tuple[float, ...] = _steps(3)
    weight_stds: tuple[float, ...] = _log(-1, 1, 3)


@dataclass(frozen=True)
class ActivationGrid(Grid):
    """ReLU and GeLU."""

    lengths: tuple[int, ...] = _LENGTHS
    stds: tuple[float, ...] = _STDS
    correlations: tuple[float, ...] = _steps(5)
    gradient_stds: tuple[float, ...] = _STDS
    gradient_correlations: tuple[float, ...] = _steps(5)


@dataclass(frozen=True)
class LayerNormGrid(Grid):
    """LayerNorm over `sizes` features."""

    sizes: tuple[int, ...] = _SIZES
    lengths: tuple[int, ...] = _LENGTHS
    means: tuple[float, ...] = (-10.0, -10.0 + 20.0 / 3.0, -10.0 + 40.0 / 3.0)
    stds: tuple[float, ...] = _STDS
    correlations: tuple[float, ...] = _steps(5)
    gradient_stds: tuple[float, ...] = _STDS
    gradient_correlations: tuple[float, ...] = _steps(5)


@dataclass(frozen=True)
class DropoutGrid(Grid):
    """Dropout with `probabilities`."""

    sizes: tuple[int, ...] = _SIZES
    lengths: tuple[int, ...] = _LENGTHS
    probabilities: tuple[float, ...] = _steps(3)
    means: tuple[float, ...] = (-10.0, 0.0, 10.0)
    stds: tuple[float, ...] = _STDS
    correlations: tuple[float, ...] = _steps(3)
    gradient_stds: tuple[float, ...] = _STDS
    gradient_correlations: tuple[float, ...] = _steps(3)


@dataclass(frozen=True)
class SoftmaxGrid(Grid):
    """Softmax over `lengths` logits."""

    lengths: tuple[int, ...] = (300, 721, 1732, 4162, 10000)
    stds: tuple[float, ...] = _log(-2, 0, 5)
    correlations: tuple[float, ...] = _steps(5)
    gradient_stds: tuple[float, ...] = _log(-0.5, 0.5, 5)


@dataclass(frozen=True)
class AttentionGrid(Grid):
    """One head, without output projection; weight stds times sqrt(d), `query_stds` for queries and keys alike."""

    sizes: tuple[int, ...] = _SIZES
    head_sizes: tuple[int, ...] = (32, 64, 128, 256)
    lengths: tuple[int, ...] = (300, 547, 1000)
    correlations: tuple[float, ...] = _steps(3)
    query_stds: tuple[float, ...] = (0.1, 0.245, 0.6)
    dropouts: tuple[float, ...] = _steps(3)
    value_stds: tuple[float, ...] = _STDS
    gradient_stds: tuple[float, ...] = _STDS
    gradient_correlations: tuple[float, ...] = _steps(3)


GRIDS: dict[str, Grid] = {
    "linear": LinearGrid(),
    "relu": ActivationGrid(),
    "gelu": ActivationGrid(),
    "layernorm": LayerNormGrid(),
    "dropout": DropoutGrid(),
    "softmax": SoftmaxGrid(),
    "attention": AttentionGrid(),
}

Percentiles = tuple[float, float, float]
PUBLISHED: dict[str, dict[str, Percentiles]] = {
    "linear": {
        "x mean": (0.0, 0.4, 1.3),
        "x variance": (0.4, 1.4, 2.8),
        "g variance": (0.2, 1.0, 2.2),
        "x covariance": (0.4, 1.4, 2.8),
        "g covariance": (0.2, 1.0, 2.2),
    },
    "relu": {
        "x mean": (0.3, 1.3, 2.3),
        "x variance": (0.5, 1.9, 3.4),
        "g variance": (0.6, 1.5, 2.6),
        "x covariance": (0.3, 1.6, 3.1),
        "g covariance": (0.2, 1.1, 2.3),
    },
    "gelu": {
        "x mean": (0.1, 1.0, 2.4),
        "x variance": (0.2, 0.6, 1.3),
        "g variance": (0.2, 0.6, 1.1),
        "x covariance": (0.1, 0.5, 1.2),
        "g covariance": (0.1, 0.4, 0.9),
    },
    "layernorm": {
        "x mean": (0.0, 0.0, 0.0),
        "x variance": (0.0, 0.0, 0.0),
        "g variance": (0.4, 1.5, 3.2),
        "x covariance": (0.1, 0.5, 1.0),
        "feature covariance": (0.0, 0.0, 0.0),
        "g covariance": (0.2, 0.9, 2.2),
    },
    "dropout": {
        "x mean": (0.0, 0.1, 0.5),
        "x variance": (0.1, 0.5, 1.5),
        "g variance": (0.1, 0.7, 1.5),
        "x covariance": (0.0, 0.4, 1.3),
        "g covariance": (0.1, 0.5, 1.2),
    },
    "softmax": {
        "x mean": (0.0, 0.0, 0.0),
        "x variance": (0.1, 0.5, 2.6),
        "g variance": (0.1, 0.6, 3.7),
    },
    "attention": {
        "x mean": (0.2, 1.0, 2.5),
        "x variance": (1.4, 4.1, 7.8),
        "g variance": (2.2, 13.3, 44.5),
        "x covariance": (1.3, 3.9, 7.4),
        "g covariance": (1.6, 4.5, 8.2),
    },
}
"""Percent error at the 50th, 90th and 99th percentile; of the softmax's two published forms the better one."""
