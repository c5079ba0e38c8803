"""What the tracer sees in the first steps of schemes that learn and of others that do not, Pre-LN beside Post-LN.

    python -m studies.first_steps --layers 96

Each scheme takes the same steps at the same learning rate. For every few of them: the gradient's variance at the
first layer over that at the last, the size of an update over the size of its weight at the bottom and at the top, and
the correlation of the tokens at the last layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dslm_patches.tracing.record import TraceRecord
from dslm_patches.tracing.trace_file import read_records
from studies.runs import Run, StudyError, add_running_options, train_all
from studies.small_models import Setting, run_of

SCHEMES = ("dslm-k0.5", "dslm-k0.5-post", "megatron-std0.125", "megatron-post")
EVERY = 5
WEIGHT = "mlp.linear_fc2.weight"
"""Of whose updates the figures are: the FFN's way out."""
NUMBERS = {
    "gradient": "gradient variance, first layer over last",
    "update_bottom": "update over weight, first layer",
    "update_top": "update over weight, last layer",
    "correlation": "token correlation, last layer",
}


def numbers_of(record: TraceRecord) -> dict[str, float]:
    """The NUMBERS of a traced step with the sites "layer" and "weights"."""
    layer, weight = record.sites["layer"], record.weights[WEIGHT]
    first, last = layer.gradient.variance[[0, -1]]
    return {
        "gradient": float(first / last) if last > 0.0 else float("nan"),
        "update_bottom": float(weight.update_ratio[0]),
        "update_top": float(weight.update_ratio[-1]),
        "correlation": float(layer.activation.correlation[-1]),
    }


def run_with_traces(setting: Setting, scheme: str, lr: str) -> Run:
    """A run whose weights are traced too, every few steps."""
    run = run_of(setting, scheme, lr)
    traced = ("--trace-sites", "layer", "weights", "--trace-interval", str(EVERY))
    return replace(run, flags=(*run.flags, *traced))


def table(seen: dict[str, dict[int, dict[str, float]]], steps: Sequence[int]) -> str:
    """Markdown, a row a scheme and number, a column a step."""
    lines = ["| scheme | | " + " | ".join(f"step {step}" for step in steps) + " |", "|---|---|" + "---|" * len(steps)]
    for scheme, at in seen.items():
        for name, said in NUMBERS.items():
            cells = " | ".join(f"{at[step][name]:.2g}" if step in at else "" for step in steps)
            lines.append(f"| `{scheme}` | {said} | {cells} |")
    return "\n".join(lines)


def draw(seen: dict[str, dict[int, dict[str, float]]], title: str, path: Path) -> None:
    """The NUMBERS over the steps, a panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(NUMBERS), figsize=(4 * len(NUMBERS), 4), layout="constrained")
    for axis, (name, said) in zip(axes, NUMBERS.items(), strict=True):
        for scheme, at in seen.items():
            values = np.array([one[name] for one in at.values()])
            values[values == 0.0] = np.nan  # the update of the first step of a warm-up from 0
            axis.plot(list(at), values, "--" if scheme.endswith("-post") else "-", marker=".", label=scheme)
        if name != "correlation":
            axis.set_yscale("log")
        axis.set(xlabel="optimizer step", title=said)
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Trains what is not trained, prints the table, writes numbers and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=96)
    parser.add_argument("--steps", type=int, default=300, help="of the whole run, of which the first are taken")
    parser.add_argument("--until", type=int, default=50, help="the step at which each run is left (default 50)")
    parser.add_argument("--lr", default="1e-3", help="for all schemes (default 1e-3)")
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), metavar="NAME")
    add_running_options(parser)
    args = parser.parse_args()
    setting = Setting("gpt", args.layers, args.steps, sequences=4)
    folder = args.folder / f"first-steps-{args.layers}"
    runs = [run_with_traces(setting, scheme, args.lr) for scheme in args.schemes]
    try:
        train_all(runs, folder, jobs=args.jobs, until=args.until)
    except (StudyError, KeyError) as error:
        parser.error(str(error))
    seen = {
        scheme: {record.iteration: numbers_of(record) for record in read_records(folder / run.name / "board")}
        for scheme, run in zip(args.schemes, runs, strict=True)
    }
    steps = [EVERY, *range(10, args.until + 1, 10)]
    print(table(seen, steps))
    title = f"{args.layers}-layer GPT, {setting.hidden_size} wide, lr {args.lr}: the first {args.until} steps"
    draw(seen, title, folder / "first_steps.png")
    (folder / "results.json").write_text(json.dumps(seen, indent=1) + "\n")
    print(f"wrote {folder}/results.json and first_steps.png")


if __name__ == "__main__":
    main()
