"""The files a subcommand writes: --json and --plot, looked at before anything is computed."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslm_patches.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT_FORMATS = (".png", ".svg", ".pdf")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """--json and --plot."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    group.add_argument("--plot", type=Path, metavar="FILE", help=f"draw to FILE, which ends in {_formats()}")


def check_outputs(args: argparse.Namespace) -> None:
    """Checks that --json and --plot can be written.

    Raises:
        UserError: a folder that is not there or cannot be written to, or a plot in an unknown format.
    """
    if args.plot is not None and args.plot.suffix.lower() not in PLOT_FORMATS:
        raise UserError(f"--plot {args.plot}: the file must end in {_formats()}")
    for flag, path in (("--json", args.json), ("--plot", args.plot)):
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"{flag} {path} is a folder: give a file in it")
        if not path.parent.is_dir():
            raise UserError(f"{flag} {path}: there is no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"{flag} {path} cannot be written to")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes --json and says so."""
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


def new_figure(panels: int) -> "tuple[Figure, list[Axes]]":
    """A figure of panels side by side, with light grids, outside any graphical backend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels, 3.8), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


def save_figure(path: Path, figure: "Figure") -> None:
    """Writes --plot and says so."""
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


def _formats() -> str:
    return f"{', '.join(PLOT_FORMATS[:-1])} or {PLOT_FORMATS[-1]}"
