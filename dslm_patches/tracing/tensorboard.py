"""Traced steps as TensorBoard curves and pictures that a person can use at 192 layers."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from dslm_patches.tracing.alerts import growth_rates
from dslm_patches.tracing.figures import Curve, depth_panels, draw_depth_figure, new_depth_figure
from dslm_patches.tracing.names import DIRECTIONS
from dslm_patches.tracing.record import QUANTITIES, WEIGHT_QUANTITIES, TraceRecord
from dslm_patches.tracing.trace_file import TraceHeader

FIGURE_SHARE = 0.005
CURVES_A_CHART = 12
"""Evenly spaced layers in a chart of the custom-scalars tab: more lines cannot be told apart."""
CHARTED = ("variance", "correlation", "absolute_maximum")


class TensorBoardTraces:
    """Writes traced steps to an open SummaryWriter.

    Scalars stand in one group a site, direction and quantity ("layer activation variance/0001", ...); the
    custom-scalars tab has a chart a group with at most twelve layers spread over the depth; the images tab has
    "depth/variance against depth", with the prediction's line and band.

    Pictures are drawn of the first and the last step, and between them as often as they take at most FIGURE_SHARE of
    the time: TensorBoard shows ten of them.

    Args:
        writer: a torch.utils.tensorboard.SummaryWriter.
    """

    def __init__(self, writer: Any, header: TraceHeader) -> None:
        self._writer = writer
        self._header = header
        self._begun = time.perf_counter()
        self._drawing = 0.0
        self._laid_out = False

    def write(self, record: TraceRecord, *, last: bool = False) -> None:
        """One step; the last one gets a picture in any case."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record) if np.isfinite(value)]
        begun = time.perf_counter()
        if depth_panels(self._header) and (last or self._drawing <= FIGURE_SHARE * (begun - self._begun)):
            values.append(self._depth_figure(record))
            self._drawing += time.perf_counter() - begun
        # One event for all of them: a writer call for each would cost thirty times as much.
        self._writer.file_writer.add_summary(Summary(value=values), record.iteration)
        if not self._laid_out:
            self._writer.add_custom_scalars(layout(record))
            self._laid_out = True

    def say(self, text: str, iteration: int) -> None:
        """An alert."""
        self._writer.add_text("alerts", text, iteration)

    def _depth_figure(self, record: TraceRecord) -> Any:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = new_depth_figure(len(depth_panels(self._header)), dpi=80)
        title = f"{self._header.title}, iteration {record.iteration}"
        draw_depth_figure(figure, self._header, [Curve("measured", record)], title)
        canvas, png = FigureCanvasAgg(figure), io.BytesIO()
        canvas.print_png(png)
        width, height = canvas.get_width_height()
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png.getvalue())
        return Summary.Value(tag="depth/variance against depth", image=image)


def layout(record: TraceRecord) -> dict[str, dict[str, list[Any]]]:
    """The custom-scalars tab: a category a site, a chart a direction and quantity."""
    categories: dict[str, dict[str, list[Any]]] = {}
    for name, site in record.sites.items():
        spread = np.unique(np.linspace(0, len(site.layers) - 1, CURVES_A_CHART).round().astype(int))
        layers = [site.layers[place] for place in spread]
        categories[name] = {
            f"{name} {way} {_in_words(quantity)}": ["Multiline", [_tag(name, way, quantity, layer) for layer in layers]]
            for way in DIRECTIONS
            for quantity in CHARTED
        }
    return categories


def _scalars(record: TraceRecord) -> Iterator[tuple[str, float]]:
    for name, site in record.sites.items():
        for way in DIRECTIONS:
            statistics = getattr(site, way)
            for quantity in QUANTITIES[:-1]:
                for layer, value in zip(site.layers, getattr(statistics, quantity), strict=True):
                    yield _tag(name, way, quantity, layer), value
    for name, weight in record.weights.items():
        for quantity in WEIGHT_QUANTITIES:
            for layer, value in enumerate(getattr(weight, quantity), start=1):
                yield f"weight {_in_words(quantity)}, {name}/{layer:04d}", value
    for way, rate in growth_rates(record).items():
        yield f"depth/growth of the {way} variance a layer", rate


def _tag(name: str, way: str, quantity: str, layer: int) -> str:
    return f"{name} {way} {_in_words(quantity)}/{layer:04d}"


def _in_words(quantity: str) -> str:
    return quantity.replace("_", " ")
