"""A run over its steps: every layer's signal as maps, and the loss over the n-gram losses of its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dslm_patches.errors import UserError
from dslm_patches.tracing.record import Array, TraceRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLATEAU = 0.1
"""Nats below the unigrams from which a loss shows more than token frequencies."""
BASELINES = {"unigrams": "--", "bigrams": ":"}
"""Line styles by the name of TensorBoard's sub-run."""


@dataclass(frozen=True)
class LossCurves:
    """What TensorBoard's files of a run hold of one loss, in nats a token.

    Attributes:
        curves: of "training" and "validation", (step, loss) pairs.
        baselines: losses of n-grams on the same validation split, by name.
    """

    name: str
    curves: Mapping[str, Sequence[tuple[int, float]]]
    baselines: Mapping[str, float]


def read_losses(run: Path, name: str = "lm loss") -> LossCurves | None:
    """The loss of a run by its TensorBoard folder; None where the folder holds none."""
    curves = {split: _scalars(run, f"{split}/{name}") for split in ("training", "validation")}
    if not any(curves.values()):
        return None
    levels = {one: _scalars(run / one, f"validation/{name}") for one in BASELINES if (run / one).is_dir()}
    return LossCurves(name, curves, {one: points[-1][1] for one, points in levels.items() if points})


def draw_losses(figure: Figure, losses: LossCurves, title: str) -> None:
    """Training and validation loss over the steps, n-gram losses as level lines."""
    axis = figure.subplots()
    for split, points in losses.curves.items():
        if points:
            marker = "." if split == "training" else "o"
            axis.plot(*zip(*points, strict=True), marker=marker, markersize=4, linewidth=1.2, label=split)
    for (name, level), colour in zip(losses.baselines.items(), ("black", "grey"), strict=False):
        axis.axhline(level, color=colour, linestyle=BASELINES[name], linewidth=1.2, label=f"{name}, {level:.3f}")
    axis.set(xlabel="iteration", ylabel=f"{losses.name} (nats a token)", title=title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def loss_in_words(losses: LossCurves) -> str:
    """Where the last validation loss stands beside the n-grams: a loss that only falls need not be learning."""
    points = losses.curves["validation"] or losses.curves["training"]
    step, loss = points[-1]
    summary = f"{losses.name} {loss:.3f} at iteration {step}"
    for name, level in losses.baselines.items():
        summary += f", {abs(level - loss):.3f} nats {'below' if loss < level else 'above'} {name} ({level:.3f})"
    unigrams = losses.baselines.get("unigrams")
    if unigrams is None:
        return summary
    return f"{summary}: {'it uses context' if loss < unigrams - PLATEAU else 'hardly more than token frequencies'}"


def signal_in_words(record: TraceRecord) -> str:
    """The signal at the layers' outputs in one traced step."""
    site = record.sites["layer"]
    forward, backward = site.activation, site.gradient
    spread = backward.variance.max() / backward.variance.min() if backward.variance.min() > 0.0 else np.inf
    return (
        f"signal at iteration {record.iteration}: token correlation at most {np.nanmax(forward.correlation):.2f}, "
        f"gradient variance within a factor of {spread:.3g} over {len(site.layers)} layers, "
        f"forward variance {forward.variance[0]:.3g} at the first and {forward.variance[-1]:.3g} at the last"
    )


def draw_history(figure: Figure, records: Sequence[TraceRecord], title: str) -> None:
    """Forward variance, token correlation and gradient variance of each layer's output, over layers and iterations.

    Raises:
        UserError: fewer than two traced steps, or none of the site "layer".
    """
    from matplotlib.colors import LogNorm, Normalize

    kept = [record for record in records if "layer" in record.sites]
    if len(kept) < 2:
        raise UserError("a map over training needs two traced steps of the site layer")
    panels: tuple[tuple[str, str, str], ...] = (
        ("forward variance", "activation", "variance"),
        ("token correlation", "activation", "correlation"),
        ("gradient variance", "gradient", "variance"),
    )
    iterations = np.array([record.iteration for record in kept])
    for axis, (name, way, quantity) in zip(figure.subplots(1, 3), panels, strict=True):
        values = np.array([getattr(getattr(one.sites["layer"], way), quantity) for one in kept]).T
        norm: Normalize = Normalize(0.0, 1.0)
        if quantity == "variance":
            good = values[np.isfinite(values) & (values > 0.0)]
            norm = LogNorm(good.min(), good.max()) if len(good) and good.min() < good.max() else Normalize()
        mesh = axis.pcolormesh(
            _edges(iterations), np.arange(len(values) + 1) + 0.5, np.ma.masked_invalid(values), norm=norm
        )
        figure.colorbar(mesh, ax=axis)
        axis.set(xlabel="iteration", ylabel="layer", title=name)
    figure.suptitle(title, fontsize=10)


def _edges(iterations: Array) -> Array:
    """Borders of the columns, half-way between the traced iterations."""
    between = (iterations[1:] + iterations[:-1]) / 2
    return np.array([2 * iterations[0] - between[0], *between, 2 * iterations[-1] - between[-1]])


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events: Any = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    if tag not in events.Tags()[SCALARS]:
        return []
    return [(event.step, event.value) for event in events.Scalars(tag)]
