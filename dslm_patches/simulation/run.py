"""Runs components over their grids and sums up the outcome."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dslm_patches.simulation.activation import simulate_activation
from dslm_patches.simulation.attention import simulate_attention
from dslm_patches.simulation.draws import Settings
from dslm_patches.simulation.dropout import simulate_dropout
from dslm_patches.simulation.estimates import Comparison
from dslm_patches.simulation.grids import GRIDS, PUBLISHED, Grid
from dslm_patches.simulation.layer_norm import simulate_layer_norm
from dslm_patches.simulation.linear import simulate_linear
from dslm_patches.simulation.softmax import simulate_softmax

SIMULATIONS: dict[str, Callable[[Any, Settings], list[Comparison]]] = {
    "linear": simulate_linear,
    "relu": partial(simulate_activation, "relu"),
    "gelu": partial(simulate_activation, "gelu"),
    "layernorm": simulate_layer_norm,
    "dropout": simulate_dropout,
    "softmax": simulate_softmax,
    "attention": simulate_attention,
}
ATTENTION_GRADIENT_TARGET = (2.0, 6.0, 10.0)
"""What the attention gradient's formula must reach; the published one has 2.2, 13.3 and 44.5 %."""


@dataclass(frozen=True)
class ComponentResult:
    """One component over its grid."""

    component: str
    configurations: int
    seconds: float
    comparisons: list[Comparison]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: per quantity the percentiles, the published ones, and the largest and typical |z|."""
        return {
            "configurations": self.configurations,
            "seconds": round(self.seconds, 2),
            "quantities": {
                one.quantity: {
                    "percent_error": dict(zip(("p50", "p90", "p99"), one.percentiles(), strict=True)),
                    "published": dict(zip(("p50", "p90", "p99"), bound(self.component, one.quantity), strict=True)),
                    "largest_abs_z": float(np.abs(one.z).max()),
                    "rms_z": float(np.sqrt(np.mean(one.z**2))),
                    "exact": one.exact,
                    "within_published": within(self.component, one),
                }
                for one in self.comparisons
            },
        }


def bound(component: str, quantity: str) -> tuple[float, float, float]:
    """The percentiles a quantity must not exceed: the published ones, and for attention's gradient its own target."""
    if (component, quantity) == ("attention", "g variance"):
        return ATTENTION_GRADIENT_TARGET
    return PUBLISHED[component][quantity]


def within(component: str, comparison: Comparison) -> bool:
    """Whether each percentile is at or below its bound, to the one decimal that was published."""
    pairs = zip(comparison.percentiles(), bound(component, comparison.quantity), strict=True)
    return all(round(ours, 1) <= theirs for ours, theirs in pairs)


def grid_of(component: str, size: str) -> Grid:
    """The published grid ("full") or its corners ("quick").

    Raises:
        ValueError: an unknown component or size.
    """
    if component not in GRIDS:
        raise ValueError(f"unknown component {component!r}: known are {', '.join(GRIDS)}")
    if size not in ("full", "quick"):
        raise ValueError(f"unknown grid {size!r}: known are full, quick")
    return GRIDS[component] if size == "full" else GRIDS[component].corners()


def simulate(components: Sequence[str], size: str, settings: Settings) -> list[ComponentResult]:
    """Simulates components over the published grid or its corners, in the order given.

    Raises:
        ValueError: an unknown component or grid.
    """
    grids = [grid_of(component, size) for component in components]
    results = []
    for component, grid in zip(components, grids, strict=True):
        start = time.perf_counter()
        comparisons = SIMULATIONS[component](grid, settings)
        results.append(ComponentResult(component, grid.configurations, time.perf_counter() - start, comparisons))
    return results
