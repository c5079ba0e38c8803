"""Draws the original project's three figures from the traces of a Pre-LN and a Post-LN model, and prints their numbers.

    python scripts/draw_signal_figures.py xavier|dslm PRE_LN_RUN POST_LN_RUN --output FOLDER

Writes preln_forward.png, preln_backward.png, postln_backward.png and numbers.json. The backward figures show the norm
of the gradient of each layer's weights (the original's quantity, here from the gradients themselves) beside the rms of
the gradient at each layer's output.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dslm_patches.tracing.figures import gradient_norms, predicted_gradient
from dslm_patches.tracing.trace_file import Prediction, read_header, read_records

Array = np.ndarray


class Measured:
    """The curves of one run, all arrays [layers]."""

    def __init__(self, run: Path) -> None:
        header, record = read_header(run), next(read_records(run))
        assert header.prediction is not None, f"{run} was traced without --trace-theory"
        self.title = header.title
        self.prediction: Prediction = header.prediction
        self.layers = np.arange(1, header.num_layers + 1)
        self.variance = record.sites["layer"].activation.variance
        self.rms = record.sites["layer"].gradient.rms
        self.predicted_rms = np.sqrt(predicted_gradient(header.prediction, record))
        self.weight_gradient = gradient_norms(record)


def linear_fit(measured: Measured) -> tuple[Array, dict[str, float]]:
    """Forward variance a + b l, least squares."""
    slope, start = np.polyfit(measured.layers, measured.variance, 1)
    line = start + slope * measured.layers
    explained = 1.0 - np.var(measured.variance - line) / np.var(measured.variance)
    predicted = np.polyfit(measured.layers, measured.prediction.variance, 1)[0]
    return line, {
        "r_squared": explained,
        "variance_a_layer": slope,
        "predicted_variance_a_layer": predicted,
        "top_variance": measured.variance[-1],
        "predicted_top_variance": measured.prediction.variance[-1],
    }


def flat_forward(measured: Measured) -> tuple[Array, dict[str, float]]:
    """Forward variance 1."""
    lowest, highest = measured.variance.min(), measured.variance.max()
    return np.ones(len(measured.layers)), {"lowest_variance": lowest, "highest_variance": highest}


def inverse_root(measured: Measured) -> tuple[Array, dict[str, float]]:
    """Weight-gradient norm c / sqrt(l + 1), l from 0, c by the mean logarithm."""
    shape = 1.0 / np.sqrt(measured.layers)
    line = shape * np.exp(np.mean(np.log(measured.weight_gradient / shape)))
    return line, {"largest_deviation_from_inverse_root": np.abs(measured.weight_gradient / line - 1.0).max()}


def exponential(measured: Measured) -> tuple[Array, dict[str, float]]:
    """Weight-gradient norm c q^l; the rate of the gradient's rms beside the predicted one, upwards."""
    layers = measured.layers
    slope, start = np.polyfit(layers, np.log(measured.weight_gradient), 1)
    return np.exp(start + slope * layers), {
        "weight_gradient_factor_a_layer": np.exp(slope),
        "gradient_rms_factor_a_layer": np.exp(np.polyfit(layers, np.log(measured.rms), 1)[0]),
        "predicted_gradient_rms_factor_a_layer": np.exp(np.polyfit(layers, np.log(measured.predicted_rms), 1)[0]),
    }


def flat_backward(measured: Measured) -> tuple[Array, dict[str, float]]:
    """Weight-gradient norm at its mean."""
    mean = measured.weight_gradient.mean()
    deviation = np.abs(measured.weight_gradient / mean - 1.0).max()
    ratio = measured.rms[0] / measured.rms[-1]
    predicted = measured.predicted_rms[0] / measured.predicted_rms[-1]
    return np.full(len(measured.layers), mean), {
        "largest_deviation_from_mean": deviation,
        "gradient_rms_bottom_over_top": ratio,
        "predicted_gradient_rms_bottom_over_top": predicted,
    }


Fit = Callable[[Measured], tuple[Array, dict[str, float]]]
FITS: dict[str, tuple[tuple[Fit, str], tuple[Fit, str], tuple[Fit, str]]] = {
    "xavier": ((linear_fit, "linear fit"), (inverse_root, "c / sqrt(l + 1)"), (exponential, "exponential fit")),
    "dslm": ((flat_forward, "1"), (flat_backward, "mean"), (flat_backward, "mean")),
}


def draw_forward(measured: Measured, line: Array, label: str) -> Figure:
    """Forward variance against depth."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axis = figure.subplots()
    p = measured.prediction
    _band(axis, measured.layers, p.variance, p.variance * p.variance_band)
    axis.plot(measured.layers, measured.variance, label="measured")
    axis.plot(measured.layers, line, color="black", linestyle=":", label=label)
    _dress(axis, "variance of each layer's output")
    figure.suptitle(measured.title, fontsize=10)
    return figure


def draw_backward(measured: Measured, fit: Array, label: str, log: bool) -> Figure:
    """Weight-gradient norm, and the gradient's rms with the theory's curve."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    weights, outputs = figure.subplots(1, 2)
    weights.plot(measured.layers, measured.weight_gradient, label="measured")
    weights.plot(measured.layers, fit, color="black", linestyle=":", label=label)
    _dress(weights, "norm of the gradient of each layer's weights")
    # A band that is relative to the variance is half as wide for its root.
    _band(
        outputs, measured.layers, measured.predicted_rms, measured.predicted_rms * measured.prediction.gradient_band / 2
    )
    outputs.plot(measured.layers, measured.rms, label="measured")
    _dress(outputs, "rms of the gradient at each layer's output")
    if log:
        weights.set_yscale("log")
        outputs.set_yscale("log")
    else:
        weights.set_ylim(bottom=0)
        outputs.set_ylim(bottom=0)
    figure.suptitle(measured.title, fontsize=10)
    return figure


def _band(axis: Any, layers: Array, line: Array, half_width: Array) -> None:
    axis.fill_between(layers, line - half_width, line + half_width, color="tab:green", alpha=0.2, linewidth=0)
    axis.plot(layers, line, color="tab:green", linestyle="--", label="theory")


def _dress(axis: Any, title: str) -> None:
    axis.set(xlabel="layer", title=title)
    axis.title.set_fontsize(9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def main() -> None:
    """Draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", choices=FITS)
    parser.add_argument("pre_ln_run", type=Path)
    parser.add_argument("post_ln_run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    pre, post = Measured(args.pre_ln_run), Measured(args.post_ln_run)
    (forward, forward_label), (backward, backward_label), (post_backward, post_label) = FITS[args.figures]
    log = args.figures == "xavier"
    numbers: dict[str, Any] = {"model": pre.title}
    drawn = {}
    line, numbers["preln_forward"] = forward(pre)
    drawn["preln_forward"] = draw_forward(pre, line, forward_label)
    line, numbers["preln_backward"] = backward(pre)
    drawn["preln_backward"] = draw_backward(pre, line, backward_label, log)
    line, numbers["postln_backward"] = post_backward(post)
    drawn["postln_backward"] = draw_backward(post, line, post_label, log)
    for name, figure in drawn.items():
        figure.savefig(args.output / f"{name}.png", dpi=110)
    text = json.dumps(numbers, indent=1, default=lambda value: round(float(value), 5))
    (args.output / "numbers.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
