"""Learning rates of depth schemes side by side: the same model, data and steps, each scheme at several rates.

    python -m studies.rates gpt --layers 96 --steps 400

Runs that are complete are kept, so that the grid may grow: --schemes and --rates choose a part of it or other points.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from megatron.dslm.models.family import NAMES
from studies.runs import Result, StudyError, add_running_options, train_all
from studies.small_models import SCHEMES, SEQUENCE, Setting, run_of

GRID: dict[str, tuple[str, ...]] = {
    "dslm-k0.2": ("1e-2",),
    "dslm-k0.5": ("3e-3", "1e-2", "2e-2"),
    "dslm-k1": ("1e-2",),
    "dslm": ("1e-2",),
    "megatron": ("1e-3", "3e-3"),
    "megatron-std0.06": ("1e-3", "3e-3"),
    "megatron-std0.125": ("1e-3", "3e-3", "1e-2"),
    "xavier": ("1e-3", "3e-3"),
    "dslm-k0.5-post": ("3e-4", "1e-3"),
    "megatron-post": ("3e-4", "1e-3"),
}
"""Rates by scheme."""


def mean_of(results: Sequence[Result]) -> float:
    """Mean over seeds of the last validation loss; infinite where one was not finite."""
    return sum(one.last for one in results) / len(results)


def best_of(results: Sequence[Result]) -> Result:
    """The run with the lowest validation loss at its end."""
    return min(results, key=lambda one: one.last)


def scheme_of(result: Result) -> tuple[str, str]:
    """Scheme and learning rate of a run, by its name."""
    scheme, _, lr = result.name.partition("-lr")
    return scheme, lr.partition("-seed")[0]


def table(results: Sequence[Result]) -> str:
    """Validation losses at the end, a row a scheme, in Markdown, the best of each bold; of several seeds the mean,
    with the lowest and the highest."""
    rates = sorted({scheme_of(one)[1] for one in results}, key=float)
    lines = ["| scheme | " + " | ".join(rates) + " |", "|---|" + "---|" * len(rates)]
    for scheme in dict.fromkeys(scheme_of(one)[0] for one in results):
        mine = {rate: [one for one in results if scheme_of(one) == (scheme, rate)] for rate in rates}
        best = min((mean_of(seeds) for seeds in mine.values() if seeds), default=float("inf"))
        cells = [_cell(mine[rate], best) for rate in rates]
        lines.append(f"| `{scheme}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(results: Sequence[Result], path: Path) -> list[Result]:
    """Adds results to a JSON file, a run a line, in place of those of the same name; all that the file then holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {one.name: one for one in read(path)} if path.is_file() else {}
    known.update((one.name, one) for one in results)
    path.write_text("[\n" + ",\n".join(json.dumps(asdict(one)) for one in known.values()) + "\n]\n")
    return list(known.values())


def read(path: Path) -> list[Result]:
    """What `write` wrote."""
    return [Result(**one) for one in json.loads(path.read_text())]


def _cell(seeds: Sequence[Result], best: float) -> str:
    if not seeds:
        return ""
    mean, losses = mean_of(seeds), [one.last for one in seeds]
    if mean == float("inf"):
        return "not finite"
    text = f"**{mean:.3f}**" if mean == best else f"{mean:.3f}"
    return text if len(seeds) == 1 else f"{text} ({min(losses):.3f} to {max(losses):.3f})"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=NAMES)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=8, help=f"of {SEQUENCE} tokens in a batch (default 8)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--schemes", nargs="+", default=list(GRID), metavar="NAME", help=f"of {', '.join(SCHEMES)}")
    parser.add_argument("--rates", nargs="+", metavar="LR", help="for all these schemes; default: each scheme's own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1234])
    add_running_options(parser)
    return parser


def main() -> None:
    """Trains what is not trained, prints the table, and writes all curves."""
    parser = build_parser()
    args = parser.parse_args()
    unknown = [one for one in args.schemes if one.removesuffix("-post") not in SCHEMES]
    if unknown:
        parser.error(f"--schemes {' '.join(unknown)}: not among {', '.join(SCHEMES)}, each with -post for Post-LN")
    setting = Setting(args.model, args.layers, args.steps, args.hidden_size, args.heads, args.sequences)
    folder = args.folder / f"rates-{args.model}-{args.layers}"
    runs = [
        run_of(setting, scheme, lr, seed)
        for scheme in args.schemes
        for lr in args.rates or GRID.get(scheme, ("3e-3",))
        for seed in args.seeds
    ]
    try:
        results = train_all(runs, folder, jobs=args.jobs)
    except StudyError as error:
        parser.error(str(error))
    print(table(write(results, folder / "results.json")))
    print(f"wrote {folder}/results.json")


if __name__ == "__main__":
    main()
