"""The runs of scripts/demo_finetune.sh side by side: dev accuracy with and without pretraining, by task and scheme.

    python scripts/report_finetune.py RUNS [--json FILE]

RUNS holds SCHEME/TASK-START-seedN/metrics.json, as the script lays them out. Seeds of one cell are shown as their
median and spread.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

STARTS = ("pretrained", "scratch")


def read_cells(runs: Path) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Best dev accuracies by (task, scheme), then by start: "pretrained" or "scratch"."""
    cells: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(runs.glob("*/*-seed*/metrics.json")):
        task, start, _ = path.parent.name.rsplit("-", 2)
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if metrics["history"][-1]["iteration"] == metrics["train_iters"]:
            cells[task, path.parent.parent.name][start].append(metrics["best"]["dev"]["accuracy"])
    return cells


def describe(accuracies: list[float]) -> str:
    """Median in percent, with lowest and highest where there are several."""
    if not accuracies:
        return "-"
    median = f"{100 * statistics.median(accuracies):.1f}"
    if len(accuracies) == 1:
        return median
    return f"{median} ({100 * min(accuracies):.1f} to {100 * max(accuracies):.1f}, {len(accuracies)} seeds)"


def table(cells: dict[tuple[str, str], dict[str, list[float]]]) -> str:
    """The cells in Markdown."""
    lines = ["| task | depth scheme | pretrained, dev accuracy % | from scratch, dev accuracy % |", "|---|---|---|---|"]
    for (task, scheme), by_start in sorted(cells.items()):
        lines.append(f"| {task} | {scheme} | " + " | ".join(describe(by_start[start]) for start in STARTS) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--json", type=Path, help="write the accuracies to this file too")
    args = parser.parse_args()
    cells = read_cells(args.runs)
    if not cells:
        sys.exit(f"{args.runs} holds no complete run of scripts/demo_finetune.sh")
    print(table(cells))
    if args.json is not None:
        content = [{"task": task, "scheme": scheme, **by} for (task, scheme), by in sorted(cells.items())]
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
