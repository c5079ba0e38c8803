"""Curves against depth, measured and predicted; matplotlib without any graphical backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dslm_patches.errors import UserError
from dslm_patches.tracing.record import Array, TraceRecord
from dslm_patches.tracing.trace_file import Prediction, TraceHeader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2
LOG_SCALE_FROM = 10.0
"""Ratio of largest to smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Curve:
    """One traced step of one run, and how it is drawn."""

    label: str
    record: TraceRecord
    colour: Any = "tab:blue"


@dataclass(frozen=True)
class Panel:
    """One quantity against depth.

    Attributes:
        measured: of a record, an array [num_layers].
        predicted: of a prediction and a record, the line [num_layers] and the half-width of its band.
    """

    title: str
    measured: Callable[[TraceRecord], Array]
    predicted: Callable[[Prediction, TraceRecord], tuple[Array, Array]] | None = None


def gradient_norms(record: TraceRecord) -> Array:
    """Norm of the gradient of all weights of each layer, [num_layers]; NaN where none was measured."""
    norms = np.array([weight.gradient_norm for weight in record.weights.values()])
    return np.where(np.isfinite(norms).any(axis=0), np.sqrt(np.nansum(norms**2, axis=0)), np.nan)


def depth_panels(header: TraceHeader) -> list[Panel]:
    """The panels of the figure "variance against depth" for what a trace holds."""
    panels = []
    if "layer" in header.sites:
        panels += [
            Panel(
                "forward variance",
                lambda record: record.sites["layer"].activation.variance,
                lambda p, _: (p.variance, p.variance * p.variance_band),
            ),
            Panel(
                "token correlation",
                lambda record: record.sites["layer"].activation.correlation,
                lambda p, _: (p.correlation, np.full_like(p.correlation, p.correlation_band)),
            ),
            Panel(
                "gradient variance",
                lambda record: record.sites["layer"].gradient.variance,
                _gradient_and_band,
            ),
        ]
    if "weights" in header.sites:
        panels.append(Panel("norm of the weights' gradient", gradient_norms))
    return panels


def draw_depth_figure(figure: Figure, header: TraceHeader, curves: Sequence[Curve], title: str) -> None:
    """Draws the curves of some steps, or runs, against depth on an empty figure, the prediction's line and band under
    them. A predicted gradient starts at the last layer's measured one, of the first curve.
    """
    panels = depth_panels(header)
    rows = -(-len(panels) // COLUMNS)
    grid = figure.subplots(rows, min(len(panels), COLUMNS), squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        shown = []
        if header.prediction is not None and panel.predicted is not None:
            line, band = panel.predicted(header.prediction, curves[0].record)
            layers = np.arange(1, len(line) + 1)
            axis.fill_between(layers, line - band, line + band, color="tab:green", alpha=0.2, linewidth=0)
            axis.plot(layers, line, color="tab:green", linestyle="--", label="theory")
            shown.append(line)
        for curve in curves:
            values = panel.measured(curve.record)
            axis.plot(np.arange(1, len(values) + 1), values, color=curve.colour, label=curve.label, linewidth=1.2)
            shown.append(values)
        _dress(axis, panel.title, np.concatenate(shown))
    figure.suptitle(title, fontsize=10)


def new_depth_figure(panels: int, dpi: int = 110) -> Figure:
    """An empty figure for so many panels.

    Raises:
        UserError: no panel, as in a trace with neither layers' outputs nor weights.
    """
    from matplotlib.figure import Figure

    if panels == 0:
        raise UserError("nothing to draw against depth: trace the sites layer or weights")

    rows = -(-panels // COLUMNS)
    figure = Figure(figsize=(4.2 * min(panels, COLUMNS), 3.0 * rows + 0.4), dpi=dpi)
    # Margins set by hand: a layout engine would double the time of each picture.
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.16 / rows, top=1.0 - 0.2 / rows, hspace=0.36, wspace=0.22)
    return figure


def predicted_gradient(prediction: Prediction, record: TraceRecord) -> Array:
    """The predicted gradient variance, [num_layers], from the measured one at the last layer's output down."""
    return prediction.gradient_variance * record.sites["layer"].gradient.variance[-1]


def _gradient_and_band(prediction: Prediction, record: TraceRecord) -> tuple[Array, Array]:
    line = predicted_gradient(prediction, record)
    return line, line * prediction.gradient_band


def _dress(axis: Axes, title: str, values: Array) -> None:
    values = values[np.isfinite(values) & (values > 0.0)]
    if len(values) and values.max() > LOG_SCALE_FROM * values.min() and "correlation" not in title:
        axis.set_yscale("log")
    axis.set(xlabel="layer", title=title)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", integer=True)
    axis.title.set_fontsize(9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
