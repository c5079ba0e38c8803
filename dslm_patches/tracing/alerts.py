"""What is wrong with a traced step: non-finite tensors, gradients that vanish or explode, tokens that collapse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dslm_patches.tracing.names import COMPUTED
from dslm_patches.tracing.record import Array, TraceRecord

NON_FINITE = "non-finite"
PATIENCE = 3
"""Traced steps in a row."""
LEAST_GROWTH = 100.0
"""Over all layers: a shallow model may change its variance quickly without harm, and the lowest layers of a deep one
get ten times the gradient of the others while it learns well."""
GROWTH_HELP = "what usually helps is Pre-LN, a scheme made for the depth, a lower learning rate or a longer warm-up"
COLLAPSE_HELP = (
    "what usually helps is a lower learning rate, a longer warm-up, Pre-LN, or branches of less weight (a smaller k)"
)


@dataclass(frozen=True)
class AlertLimits:
    """When to speak.

    Attributes:
        growth: factor a layer, fitted over the depth, by which gradient variance may change.
        correlation: token correlation of a layer's output above which its tokens count as collapsed.
    """

    growth: float = 1.02
    correlation: float = 0.98


@dataclass(frozen=True)
class Alert:
    """One finding: its kind, the same from step to step, and a line for a person."""

    kind: str
    text: str


class StandingAlerts:
    """The findings of a run that stand, each told once.

    A model that begins to learn passes through what would be alarming in one that stays there: tokens that are alike
    while it learns token frequencies, signals that grow while the learning rate warms up. So a finding is told once
    it was there in PATIENCE traced steps in a row, all after the warm-up; a tensor that is not finite is told at
    once. What was told is told again after it was gone.

    Args:
        warmup: last iteration of the warm-up.
    """

    def __init__(self, warmup: int = 0) -> None:
        self._warmup = warmup
        self._steps: dict[str, int] = {}

    def new(self, iteration: int, found: Sequence[Alert]) -> list[Alert]:
        """Takes in the findings of the next traced step; those that are to be told now."""
        if iteration <= self._warmup:
            found = [alert for alert in found if alert.kind == NON_FINITE]
        self._steps = {alert.kind: self._steps.get(alert.kind, 0) + 1 for alert in found}
        return [alert for alert in found if self._steps[alert.kind] == (1 if alert.kind == NON_FINITE else PATIENCE)]

    def state_dict(self) -> dict[str, int]:
        """Traced steps in a row that each kind has stood."""
        return dict(self._steps)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Puts back what `state_dict` gave."""
        self._steps = dict(state)


def alerts(record: TraceRecord, limits: AlertLimits) -> list[Alert]:
    """The findings of one step, the most serious first."""
    return [*_non_finite(record), *_growth(record, limits.growth), *_collapse(record, limits.correlation)]


def growth_rates(record: TraceRecord) -> dict[str, float]:
    """Factor a layer by which the variance at the layers' outputs grows, upwards for activations and downwards for
    gradients, by least squares on its logarithm; NaN where it was not measured. Empty without the site "layer"."""
    if "layer" not in record.sites:
        return {}
    site = record.sites["layer"]
    return {
        "activation": _rate(site.activation.variance),
        "gradient": _rate(site.gradient.variance[::-1]),
    }


def _rate(variance: Array) -> float:
    """Growth along the array."""
    if len(variance) < 2 or not (np.all(np.isfinite(variance)) and np.all(variance > 0.0)):
        return float("nan")
    return float(np.exp(np.polyfit(np.arange(len(variance)), np.log(variance), 1)[0]))


def _non_finite(record: TraceRecord) -> Iterator[Alert]:
    """The first tensor, as the step computed them: activations from the bottom, gradients from the top, weights."""
    found = [
        (layer, COMPUTED.index(name), name, way, site)
        for name, site in record.sites.items()
        for place, layer in enumerate(site.layers)
        for way, site_way in (("activation", site.activation), ("gradient", site.gradient))
        if (site_way.non_finite[place]) > 0.0
    ]
    forward = sorted((one for one in found if one[3] == "activation"), key=lambda one: one[:2])
    backward = sorted((one for one in found if one[3] == "gradient"), key=lambda one: one[:2], reverse=True)
    if forward or backward:
        layer, _, name, way, site = (forward or backward)[0]
        statistics = site.activation if way == "activation" else site.gradient
        place = site.layers.index(layer)
        where = name if len(site.layers) == 1 else f"layer {layer}" + ("" if name == "layer" else f", {name}")
        yield Alert(
            NON_FINITE,
            f"first non-finite {way}: {where} ({statistics.non_finite[place]:,.0f} of {statistics.count[place]:,.0f} "
            "values)",
        )
        return
    for name, weight in record.weights.items():
        for what, values in (("weight", weight.norm), ("gradient of the weight", weight.gradient_norm)):
            bad = np.flatnonzero(np.isinf(values))
            if len(bad):
                yield Alert(NON_FINITE, f"first non-finite {what}: layer {bad[0] + 1}, {name}")
                return


def _growth(record: TraceRecord, limit: float) -> Iterator[Alert]:
    """Gradients alone: what grows on its way up through Pre-LN layers is divided out by the last norm."""
    rate = growth_rates(record).get("gradient", np.nan)
    if "layer" not in record.sites:
        return
    site = record.sites["layer"]
    variance, layers = site.gradient.variance, site.layers
    gone = np.flatnonzero(variance == 0.0)  # below the smallest number; where none was measured it is NaN
    if len(gone) and variance[-1] > 0.0:
        yield Alert(
            "gradient growth",
            f"gradients vanish altogether: 0 at layer {layers[gone[-1]]}, a variance of {variance[-1]:.3g} at layer "
            f"{layers[-1]}; {GROWTH_HELP}",
        )
    if not rate > 0.0:
        return
    # In logarithms: over hundreds of layers the factor itself may leave the range of numbers.
    total = abs(np.log10(rate)) * (len(layers) - 1)
    if max(rate, 1.0 / rate) > limit and total > np.log10(LEAST_GROWTH):
        what, factor = ("grows", rate) if rate > 1.0 else ("vanishes", 1.0 / rate)
        extreme = int(np.argmax(variance) if rate > 1.0 else np.argmin(variance))
        yield Alert(
            "gradient growth",
            f"gradient variance {what} towards the embeddings by {factor:.4g} a layer (limit {limit:g}): "
            f"{variance[extreme]:.3g} at layer {layers[extreme]}, {variance[-1]:.3g} at layer {layers[-1]}; "
            f"{GROWTH_HELP}",
        )


def _collapse(record: TraceRecord, limit: float) -> Iterator[Alert]:
    if "layer" not in record.sites:
        return
    site = record.sites["layer"]
    at = np.flatnonzero(site.activation.correlation > limit)
    if len(at):
        where = f"{len(at)} of {len(site.layers)} layers" if len(at) > 1 else "one layer"
        yield Alert(
            "rank collapse",
            f"tokens collapse in {where}, first in layer {site.layers[at[0]]}: their correlation there is "
            f"{site.activation.correlation[at[0]]:.4f} (limit {limit:g}); {COLLAPSE_HELP}",
        )
