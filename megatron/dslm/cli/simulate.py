"""`dslm simulate`: the closed forms against Monte Carlo, over the published grids."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslm_patches.errors import UserError

if TYPE_CHECKING:
    from dslm_patches.simulation.run import ComponentResult

COMPONENTS = ("linear", "relu", "gelu", "layernorm", "dropout", "softmax", "attention")


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "simulate",
        help="check the closed forms by simulation",
        description="Simulate components over the grids of arXiv 2403.09635 and compare the closed forms' errors with "
        "the published ones. Exits with 1 when a percentile is above its bound.",
    )
    add = parser.add_argument
    add("components", nargs="*", metavar="COMPONENT", help=f"any of {', '.join(COMPONENTS)}; default all")
    add("--grid", choices=("full", "quick"), default="quick", help="all configurations, or the corners; default quick")
    add("--json", metavar="FILE", help="write the results there")
    add("--device", default="cpu", help="cpu or cuda; default cpu")
    add("--dtype", choices=("float32", "float64"), default="float32", help="of the draws; sums are float64")
    add("--seed", type=int, default=0)
    add("--effort", type=float, default=1.0, help="factor on the number of draws; default 1")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulates and prints; the exit code.

    Raises:
        UserError: an unknown component, a device that is not there, a folder that does not exist.
    """
    components = args.components or list(COMPONENTS)
    for component in components:
        if component not in COMPONENTS:
            raise UserError(f"unknown component {component!r}: known are {', '.join(COMPONENTS)}")
    if not 0.0 < args.effort < float("inf"):
        raise UserError(f"--effort must be positive, not {args.effort:g}")
    if args.json is not None and not Path(args.json).resolve().parent.is_dir():
        raise UserError(f"--json {args.json}: no such folder")

    import torch
    from tqdm import tqdm

    from dslm_patches.simulation.draws import Settings
    from dslm_patches.simulation.run import grid_of, simulate

    if args.device != "cpu" and not (args.device.startswith("cuda") and torch.cuda.is_available()):
        raise UserError(f"--device {args.device}: there is no such device here; use cpu")
    total = sum(grid_of(component, args.grid).configurations for component in components)
    # Counted in configurations, of which those of attention take most of the time.
    with tqdm(total=total, unit="config", file=sys.stderr, dynamic_ncols=True) as bar:
        settings = Settings(args.device, getattr(torch, args.dtype), args.seed, args.effort, bar.update)
        results = simulate(components, args.grid, settings)
    print(table(results))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(as_dict(args, results), indent=1) + "\n")
    return 0 if all(one["within_published"] for one in _quantities(results)) else 1


def table(results: "list[ComponentResult]") -> str:
    """Percent errors at the 50/90/99th percentile beside the published ones, a line a quantity."""
    lines = [
        f"{'component':<10} {'quantity':<19} {'error % 50/90/99':>19} {'bound 50/90/99':>17} {'max|z|':>7} {'rms z':>6}"
    ]
    for result in results:
        for quantity, one in result.as_dict()["quantities"].items():
            ours = "/".join(f"{x:.2f}" for x in one["percent_error"].values())
            published = "/".join(f"{x:.1f}" for x in one["published"].values())
            verdict = "" if one["within_published"] else "  ABOVE"
            lines.append(
                f"{result.component:<10} {quantity:<19} {ours:>19} {published:>17} "
                f"{one['largest_abs_z']:>7.1f} {one['rms_z']:>6.2f}{verdict}"
            )
        lines.append(f"{result.component:<10} {result.configurations} configurations in {result.seconds:.1f} s")
    return "\n".join(lines)


def as_dict(args: argparse.Namespace, results: "list[ComponentResult]") -> dict[str, Any]:
    """The results, with what they were made with."""
    import platform

    import torch

    return {
        "grid": args.grid,
        "seed": args.seed,
        "effort": args.effort,
        "device": args.device,
        "dtype": args.dtype,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "configurations": sum(result.configurations for result in results),
        "seconds": round(sum(result.seconds for result in results), 1),
        "components": {result.component: result.as_dict() for result in results},
    }


def _quantities(results: "list[ComponentResult]") -> list[dict[str, Any]]:
    return [one for result in results for one in result.as_dict()["quantities"].values()]
