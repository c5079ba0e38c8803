"""A sweep's runs in a table: median and spread over seeds, by learning rate.

    python tools/summarise_sweep.py runs/mnli [--last] [--json FILE]

reads RUN/metrics.json of every run folder under the given ones, as finetune.py writes it, and prints a row for each
data set and metric: learning rate, runs, median, lowest and highest of the best evaluations (--last: of the last ones).
The best learning rate of a metric is marked. Runs that are not complete are named and left out.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dslm_patches.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megatron.dslm.data.command_line import ToolArgumentParser, run_tool


class Row(NamedTuple):
    """One metric of one data set at one learning rate, over seeds."""

    task: str
    data: str
    metric: str
    lr: float
    values: list[float]
    best: bool

    def as_json(self) -> dict[str, Any]:
        """The row with its median and spread."""
        spread = {"median": statistics.median(self.values), "lowest": min(self.values), "highest": max(self.values)}
        return {**self._asdict(), **spread}


def read_runs(folders: list[str], which: str) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Each run's folder with its metrics.json, None where it is not complete.

    Raises:
        UserError: a folder without runs, or a file that finetune.py did not write.
    """
    for folder in folders:
        paths = sorted(Path(folder).glob("**/metrics.json"))
        if not paths:
            raise UserError(f"{folder}: no run with a metrics.json of finetune.py")
        for path in paths:
            try:
                run = json.loads(path.read_text(encoding="utf-8"))
                complete = run["history"][-1]["iteration"] == run["train_iters"] and which in run
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise UserError(f"{path}: not a metrics.json of finetune.py: {error!r}") from None
            yield path.parent, run if complete else None


def rows(runs: list[dict[str, Any]], which: str) -> list[Row]:
    """A row for each task, data set, metric and learning rate."""
    values: dict[tuple[str, str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for data, metrics in run[which].items():
            if isinstance(metrics, dict):
                for metric, value in metrics.items():
                    values[run["task"], data, metric][run["lr"]].append(value)
    found = []
    for (task, data, metric), by_lr in values.items():
        medians = {lr: statistics.median(of_one) for lr, of_one in by_lr.items()}
        best = min(medians, key=medians.__getitem__) if metric == "loss" else max(medians, key=medians.__getitem__)
        found += [Row(task, data, metric, lr, by_lr[lr], lr == best) for lr in sorted(by_lr)]
    return found


def table(found: list[Row]) -> str:
    """The rows as aligned text."""
    cells: list[tuple[str, ...]] = [("task", "data", "metric", "lr", "runs", "median", "lowest", "highest", "")]
    for row in found:
        numbers = (statistics.median(row.values), min(row.values), max(row.values))
        texts = tuple(f"{number:.4f}" for number in numbers)
        cells.append((row.task, row.data, row.metric, f"{row.lr:g}", str(len(row.values)), *texts, "*" * row.best))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = ToolArgumentParser("Median and spread of a fine-tuning sweep, by learning rate.")
    parser.add_argument("folders", nargs="+", help="folders with runs of finetune.py in them")
    parser.add_argument("--last", action="store_true", help="the last evaluation of each run, not the best")
    parser.add_argument("--json", type=Path, help="write the table to this file too")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    which = "last" if args.last else "best"
    runs = []
    for folder, run in read_runs(args.folders, which):
        if run is None:
            print(f"{folder}: not complete, left out", file=sys.stderr)
        else:
            runs.append(run)
    if not runs:
        raise UserError(f"{' '.join(args.folders)}: no run is complete")
    found = rows(runs, which)
    print(table(found))
    if args.json is not None:
        args.json.write_text(json.dumps([row.as_json() for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
