"""Draws the curves of scripts/thousand_layers.sh and writes their numbers, from the runs' TensorBoard files."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"dslm": "DeepScaleLM", "megatron-post-ln": "Post-LN, Megatron's init"}
COLOURS = {"dslm": "tab:blue", "megatron-post-ln": "tab:red"}
STYLES = ("-", "--", ":", "-.")


def unigram_entropy(tokens_file: Path) -> float:
    """Entropy in nats of the token frequencies of a .bin file of uint16 tokens."""
    counts = np.bincount(np.fromfile(tokens_file, dtype=np.uint16)).astype(np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def read_run(folder: Path) -> dict[str, Any]:
    """Validation and training loss curves of one run, as (step, loss)."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curve = {
        name: [(event.step, event.value) for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []
        for name, tag in (("validation", "validation/lm loss"), ("training", "training/lm loss"))
    }
    return curve


def main() -> None:
    """Reads the runs, draws the figure, prints and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of scripts/thousand_layers.sh")
    parser.add_argument("--data", type=Path, required=True, help=".bin file the runs trained on")
    args = parser.parse_args()
    entropy = unigram_entropy(args.data)
    results = []
    figure, axes = plt.subplots(figsize=(8, 5))
    for name in NAMES:
        for style, folder in zip(STYLES, sorted(args.runs.glob(f"{name}-*e-*/")), strict=False):
            run = read_run(folder) | {"scheme": name, "lr": folder.name.removeprefix(f"{name}-")}
            stopped = "stopped:" in Path(f"{folder}.log").read_text()
            final = run["validation"][-1][1] if run["validation"] and not stopped else math.inf
            results.append(run | {"final validation loss": final, "stopped as not finite": stopped})
            steps, losses = zip(*run["validation"], strict=True)
            axes.plot(steps, losses, style, color=COLOURS[name], marker="o", label=f"{NAMES[name]}, lr {run['lr']}")
    axes.axhline(entropy, color="black", linewidth=1, label=f"unigram entropy {entropy:.2f}")
    axes.axhline(entropy - 0.3, color="grey", linewidth=1, linestyle=":", label="0.3 nats below")
    axes.set(xlabel="optimizer step", ylabel="validation loss (nats a token)", title="1000-layer GPT, 32 wide")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    (ROOT / "docs" / "figures").mkdir(parents=True, exist_ok=True)
    figure.savefig(ROOT / "docs" / "figures" / "thousand_layers.png", dpi=130, bbox_inches="tight")
    report = {"unigram entropy": entropy, "runs": results}
    (ROOT / "docs" / "thousand_layers.json").write_text(json.dumps(report, indent=1) + "\n")
    for run in results:
        print(
            f"{NAMES[run['scheme']]:<26} lr {run['lr']}: final validation loss {run['final validation loss']:.4f}, "
            f"{entropy - run['final validation loss']:+.4f} nats below the unigram entropy {entropy:.4f}"
        )


if __name__ == "__main__":
    main()
