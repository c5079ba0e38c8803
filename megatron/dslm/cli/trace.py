"""`dslm trace`: curves against depth from the trace.jsonl of a run, or of two runs side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslm_patches.errors import UserError
from megatron.dslm.cli.outputs import add_output_flags, check_outputs, save_figure, write_json

if TYPE_CHECKING:
    from dslm_patches.tracing.record import TraceRecord

CURVES = 6
"""Steps that a plot shows by default, spread over the run."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "trace",
        help="draw or compare what a training run measured of every layer",
        description="Draw what a run traced (pretrain_*.py --trace-interval, dslm profile) against depth.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plot = actions.add_parser("plot", help="one run: its layers at some iterations, over the prediction")
    plot.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of trace.jsonl")
    plot.add_argument(
        "--iterations", type=int, nargs="+", help=f"traced iterations to draw; default {CURVES} spread over the run"
    )
    history = actions.add_parser("history", help="one run over its iterations: each layer's signal, and the loss")
    history.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of trace.jsonl and TensorBoard's files")
    history.set_defaults(run_action=_history)
    compare = actions.add_parser("compare", help="two runs side by side: one iteration of each")
    compare.add_argument("run_dir", type=Path, metavar="RUN_A", help="folder of trace.jsonl")
    compare.add_argument("other", type=Path, metavar="RUN_B", help="folder of trace.jsonl")
    compare.add_argument("--iteration", type=int, help="traced iteration of both; default the last that both have")
    for action in (plot, compare):
        add_output_flags(action)
        action.set_defaults(run_action=_plot if action is plot else _compare)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if "plot" in args:
        check_outputs(args)
    return args.run_action(args)


def _plot(args: argparse.Namespace) -> int:
    from matplotlib import colormaps

    from dslm_patches.tracing.figures import Curve, depth_panels, draw_depth_figure, new_depth_figure
    from dslm_patches.tracing.trace_file import read_header, read_records, trace_path

    header, records = read_header(args.run_dir), list(read_records(args.run_dir))
    chosen = _chosen(args.run_dir, records, args.iterations)
    print(f"{header.title}: {len(records)} traced steps, iterations {records[0].iteration} to {records[-1].iteration}")
    print("\n".join(summary(chosen[-1])))
    path = args.plot or trace_path(args.run_dir).with_name("variance_against_depth.png")
    colours = colormaps["viridis"]([0.85 * place / max(1, len(chosen) - 1) for place in range(len(chosen))])
    curves = [Curve(f"iteration {one.iteration}", one, colour) for one, colour in zip(chosen, colours, strict=True)]
    figure = new_depth_figure(len(depth_panels(header)))
    draw_depth_figure(figure, header, curves, header.title)
    save_figure(path, figure)
    if args.json is not None:
        write_json(args.json, {**header.as_json(), "steps": [one.as_json() for one in chosen]})
    return 0


def _history(args: argparse.Namespace) -> int:
    from matplotlib.figure import Figure

    from dslm_patches.tracing.history import draw_history, draw_losses, loss_in_words, read_losses, signal_in_words
    from dslm_patches.tracing.trace_file import read_header, read_records, trace_path

    header, folder = read_header(args.run_dir), trace_path(args.run_dir).parent
    records = list(read_records(args.run_dir))
    figure = Figure(figsize=(13.0, 3.8), layout="constrained")
    draw_history(figure, records, header.title)
    save_figure(folder / "signal_over_training.png", figure)
    losses = read_losses(folder)
    if losses is not None:
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        draw_losses(figure, losses, header.title)
        save_figure(folder / "loss_over_baselines.png", figure)
        print(loss_in_words(losses))
    print(signal_in_words(records[-1]))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from dslm_patches.tracing.figures import Curve, depth_panels, draw_depth_figure, new_depth_figure
    from dslm_patches.tracing.trace_file import TraceHeader, read_header, read_records

    runs = (args.run_dir, args.other)
    headers = [read_header(run) for run in runs]
    steps = [{one.iteration: one for one in read_records(run)} for run in runs]
    common = sorted(set(steps[0]) & set(steps[1]))
    if args.iteration is None and not common:
        raise UserError(f"{runs[0]} and {runs[1]} have no traced iteration in common: give --iteration")
    iteration = common[-1] if args.iteration is None else args.iteration
    chosen = [_chosen(run, list(of.values()), [iteration])[0] for run, of in zip(runs, steps, strict=True)]
    names = [f"{run}: {header.title}" for run, header in zip(runs, headers, strict=True)]
    for name, record in zip(names, chosen, strict=True):
        print(name)
        print("\n".join(summary(record)))
    print("\n".join(differences(*chosen)))
    if args.plot is not None:
        sites = [site for site in headers[0].sites if site in headers[1].sites]
        header = TraceHeader("", headers[0].num_layers, sites)
        curves = [Curve(name, one, f"C{at}") for at, (name, one) in enumerate(zip(names, chosen, strict=True))]
        figure = new_depth_figure(len(depth_panels(header)))
        draw_depth_figure(figure, header, curves, f"iteration {iteration}")
        save_figure(args.plot, figure)
    if args.json is not None:
        write_json(args.json, {name: one.as_json() for name, one in zip(names, chosen, strict=True)})
    return 0


def _chosen(run: Path, records: "Sequence[TraceRecord]", iterations: list[int] | None) -> "list[TraceRecord]":
    """The records of these iterations, or some spread over the run."""
    if not records:
        raise UserError(f"{run} holds no traced step yet")
    if iterations is None:
        last = len(records) - 1
        return [records[at] for at in sorted({round(last * k / (CURVES - 1)) for k in range(CURVES)})]
    known = {one.iteration: one for one in records}
    missing = [iteration for iteration in iterations if iteration not in known]
    if missing:
        shown = ", ".join(map(str, list(known)[:12])) + (", ..." if len(known) > 12 else "")
        raise UserError(f"{run} has no traced iteration {missing[0]}: it has {shown}")
    return [known[iteration] for iteration in iterations]


def summary(record: "TraceRecord") -> list[str]:
    """A line a site and direction: first, lowest, highest and last value over the layers, and growth a layer."""
    from dslm_patches.tracing.alerts import growth_rates

    lines = []
    rates = growth_rates(record)
    for name, site in record.sites.items():
        for way in ("activation", "gradient"):
            statistics = getattr(site, way)
            v, r = statistics.variance, statistics.correlation
            line = f"  iteration {record.iteration:<6} {name:<15}{way:<11}variance {v[0]:.4g}"
            if len(v) > 1:
                line += f" .. {v[-1]:.4g} (lowest {v.min():.4g}, highest {v.max():.4g})"
            if r[-1] == r[-1]:
                line += f"  correlation {r[0]:.3f}" + (f" .. {r[-1]:.3f}" if len(r) > 1 else "")
            lines.append(line + (f"  growth {rates[way]:.4f} a layer" if name == "layer" else ""))
    return lines


def differences(a: "TraceRecord", b: "TraceRecord") -> list[str]:
    """The largest ratio of variances over the layers of each site that both runs have."""
    import numpy as np

    lines = []
    for name in a.sites.keys() & b.sites.keys():
        for way in ("activation", "gradient"):
            first, second = getattr(a.sites[name], way).variance, getattr(b.sites[name], way).variance
            if len(first) != len(second):
                lines.append(f"  {name} {way}: {len(first)} against {len(second)} places")
                continue
            ratio = second / first
            at = int(np.nanargmax(np.abs(np.log(ratio)))) if np.isfinite(ratio).any() else 0
            lines.append(f"  {name:<15}{way:<11}variance B/A {ratio[at]:.4g} at most, at {a.sites[name].layers[at]}")
    return sorted(lines)
