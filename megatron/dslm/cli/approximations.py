"""`dslm approximations`: the authors' short forms of ReLU's and a ReLU FFN's correlation against the exact ones."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.dslm.cli.outputs import add_output_flags, check_outputs, new_figure, save_figure, write_json

if TYPE_CHECKING:
    from dslm_patches.theory.moments import Array

POINTS = 1001


@dataclass(frozen=True)
class Comparison:
    """An approximation over input correlations r in [0, 1], all arrays of one length."""

    name: str
    formula: str
    r: "Array"
    exact: "Array"
    approximate: "Array"

    @property
    def error(self) -> "Array":
        """Approximate minus exact."""
        return self.approximate - self.exact

    @property
    def worst(self) -> int:
        """Where the error is largest in absolute value."""
        return int(abs(self.error).argmax())


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "approximations",
        help="the short forms of ReLU's and the FFN's correlation against the exact ones",
        description="Compare the short forms of arXiv 2403.09635 for the token correlation behind a ReLU and behind a "
        "ReLU FFN with the exact ones, for token correlations r from 0 to 1.",
    )
    add_output_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compares, prints the largest errors, and writes what was asked for.

    Raises:
        UserError: a file that cannot be written.
    """
    check_outputs(args)
    comparisons = compare()
    for one in comparisons:
        print(
            f"{one.name}: {one.formula} is off by {one.error[one.worst]:+.5f} at most, at r = {one.r[one.worst]:.3f} "
            f"(exact {one.exact[one.worst]:.5f}, approximate {one.approximate[one.worst]:.5f})"
        )
    if args.json is not None:
        write_json(args.json, {one.name: as_dict(one) for one in comparisons})
    if args.plot is not None:
        _plot(args.plot, comparisons)
    return 0


def compare() -> list[Comparison]:
    """Both approximations; the exact values do not depend on the variance of ReLU's input, which is 1 here."""
    import numpy as np

    from dslm_patches.theory.activations import first_moment, product_moment, second_moment
    from dslm_patches.theory.closed_forms import ffn_correlation_approximation, relu_correlation_approximation

    r = np.linspace(0.0, 1.0, POINTS)
    product, square = np.asarray(product_moment("relu", 1.0, r)), second_moment("relu", 1.0)
    mean_square = first_moment("relu", 1.0) ** 2
    relu = (product - mean_square) / (square - mean_square)
    return [
        Comparison("ReLU", "0.7 r + 0.3 r^2", r, relu, relu_correlation_approximation(r)),
        # Behind the second linear nothing is left of the mean but what tokens share of it.
        Comparison("FFN", "1/pi + r/2 + (1/2 - 1/pi) r^2", r, product / square, ffn_correlation_approximation(r)),
    ]


def as_dict(one: Comparison) -> dict[str, Any]:
    """What --json holds of a comparison."""
    return {
        "approximation": one.formula,
        "largest_error": float(one.error[one.worst]),
        "at": float(one.r[one.worst]),
        "r": one.r.tolist(),
        "exact": one.exact.tolist(),
        "approximate": one.approximate.tolist(),
    }


def _plot(path: Path, comparisons: list[Comparison]) -> None:
    figure, (curves, errors) = new_figure(2)
    for one, colour in zip(comparisons, ("tab:blue", "tab:orange"), strict=True):
        curves.plot(one.r, one.exact, color=colour, label=f"{one.name}, exact")
        curves.plot(one.r, one.approximate, color=colour, linestyle="--", label=f"{one.name}, approximate")
        label = f"{one.name}: {one.error[one.worst]:+.4f} at r = {one.r[one.worst]:.2f}"
        errors.plot(one.r, one.error, color=colour, label=label)
        errors.plot(one.r[one.worst], one.error[one.worst], "o", color=colour)
    curves.set(
        xlabel="token correlation of the input, r", ylabel="token correlation of the output", title="Correlation"
    )
    errors.set(xlabel="token correlation of the input, r", ylabel="approximate - exact", title="Error, largest marked")
    errors.axhline(0.0, color="black", linewidth=0.8)
    for panel in (curves, errors):
        panel.legend(fontsize=8)
    save_figure(path, figure)
