"""Trains a 1000-layer GPT by several depth schemes, one learning rate each, beside n-gram losses.

    python -m studies.thousand_layers --layers 1000 --steps 500

At a third of the steps two kinds of rivals end: those that still stand where a table of token frequencies does, and
all of Megatron's initialisations but the best one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from studies.depth_use import losses
from studies.depth_use import table as table_of_losses
from studies.rates import best_of, scheme_of, table, write
from studies.runs import Result, Run, StudyError, add_running_options, complete, train_all
from studies.small_models import Setting, evaluation_interval, run_of

METHOD = ("dslm-k0.5", "1e-2")
MEGATRON = (("megatron", "3e-3"), ("megatron-std0.06", "3e-3"), ("megatron-std0.125", "3e-3"))
RIVALS = (*MEGATRON, ("xavier", "3e-3"), ("megatron-post", "1e-3"))
"""Pre-LN at the rates that were best at 48 layers; `studies.rates` at 96 layers is to confirm or change them."""
PLATEAU = 0.1
"""Nats below the unigrams within which a loss counts as on their plateau."""


def why_not_on(result: Result, best_megatron: Result) -> str | None:
    """Why a rival does not go on after a third of its steps; None where it does."""
    if result.stopped is not None or result.test is not None:
        return None  # it has ended by itself
    if result.unigrams is not None and result.last > result.unigrams - PLATEAU:
        return "on the unigram plateau"
    of_megatron = scheme_of(result) in MEGATRON
    return "another of Megatron's initialisations is ahead" if of_megatron and result is not best_megatron else None


def study(setting: Setting, folder: Path, jobs: int) -> list[Result]:
    """Trains all runs and returns their results, DeepScaleLM's first."""
    runs = [run_of(setting, *point) for point in (METHOD, *RIVALS)]
    every = evaluation_interval(setting)
    third = every * max(1, round(setting.steps / 3 / every))
    early = train_all(runs, folder, jobs=jobs, until=third, keep=True)
    best = best_of([one for one in early if scheme_of(one) in MEGATRON])
    going_on: list[Run] = []
    for run, result in zip(runs[1:], early[1:], strict=True):
        if result.left is None:
            result.left = why_not_on(result, best)
            if result.left is not None:
                complete(result, folder)
        if result.left is None:
            going_on.append(run)
    whole = train_all([runs[0], *going_on], folder, jobs=jobs, keep=True)
    return [*whole, *(one for one in early[1:] if one.left is not None)]


def curves(results: Sequence[Result], title: str, path: Path) -> None:
    """Validation losses over the steps, with the n-gram losses of the same text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for result in results:
        scheme, lr = scheme_of(result)
        steps, values = zip(*result.validation, strict=True)
        axes.plot(steps, values, marker=".", label=f"{scheme}, lr {lr}", linewidth=2 if scheme == METHOD[0] else 1)
    for name, style in (("unigrams", "--"), ("bigrams", ":")):
        value = getattr(results[0], name)
        if value is not None:
            axes.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{name} {value:.3f}")
    first = results[0].validation[1:] or results[0].validation
    axes.set_ylim(top=max(first[0][1], results[0].unigrams or 0.0) + 0.3)
    axes.set(xlabel="optimizer step", ylabel="validation loss (nats a token)", title=title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Trains what is not trained, and writes the losses, the figure, and what the method's model loses with layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batches", type=int, default=32, help="of validation data with layers skipped (default 32)")
    add_running_options(parser)
    args = parser.parse_args()
    setting = Setting("gpt", args.layers, args.steps, sequences=4, evaluations=10)
    folder = args.folder / f"{args.layers}-layers-{args.steps}-steps"
    try:
        results = study(setting, folder, args.jobs)
        method = run_of(setting, *METHOD)
        use = {"run": method.name, "layers": args.layers, "losses": losses(method, folder / method.name, args.batches)}
    except (StudyError, RuntimeError) as error:
        parser.error(str(error))
    print(table(write(results, folder / "results.json")))
    print(table_of_losses([use]))
    curves(results, f"{args.layers}-layer GPT, {setting.hidden_size} wide", folder / "losses.png")
    print(f"wrote {folder}/results.json and losses.png")


if __name__ == "__main__":
    main()
