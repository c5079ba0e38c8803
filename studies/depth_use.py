"""Does a model use its depth? Deep and shallow ones at equal tokens, then the loss with layers made the identity.

    python -m studies.depth_use --layers 6 48 --steps 600

A model that has learned to pass its input through most of its layers loses little when they are skipped.
"""

import argparse
import contextlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from studies.runs import Run, StudyError, add_running_options, train_all
from studies.small_models import Setting, run_of

SCHEMES_AND_RATES = (("dslm-k0.5", "1e-2"), ("megatron-std0.125", "3e-3"))
"""Each at its best rate of `studies.rates`."""

VARIANTS: dict[str, Callable[[int], range]] = {
    "all layers": lambda layers: range(0),
    "every second layer skipped": lambda layers: range(1, layers, 2),
    "bottom half skipped": lambda layers: range(layers // 2),
    "top half skipped": lambda layers: range(layers // 2, layers),
}
"""The layers that are skipped, counted from 0, by the number of layers."""


@contextlib.contextmanager
def skipped(layers: Sequence[Any], numbers: Sequence[int]) -> Iterator[None]:
    """Layers that hand on what they are given, inside.

    Args:
        layers: megatron-core's transformer layers, which return hidden states and a context.
        numbers: which of them.
    """

    def identity(hidden_states: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return hidden_states, None

    with contextlib.ExitStack() as stack:
        for number in numbers:
            stack.enter_context(mock.patch.object(layers[number], "forward", identity))
        yield


def losses(run: Run, folder: Path, batches: int) -> dict[str, float]:
    """Validation loss in nats a token by variant, of a run's last checkpoint; in a process of its own.

    Raises:
        RuntimeError: that process failed; what it said stands on standard error.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(run, str(folder), batches, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{folder}: the loss could not be measured") from None
    finally:
        process.join()


def _measure(run: Run, folder: str, batches: int, connection: Any) -> None:
    from megatron.dslm.arguments import parse_args
    from megatron.dslm.distributed.libraries import prepare_libraries

    words = ["--train-iters", str(run.steps), "--pretrained-checkpoint", f"{folder}/checkpoints"]
    args = parse_args(run.model, [*run.flags, *words, "--eval-iters", str(batches), "--trace-interval", "0"])
    prepare_libraries()
    from megatron.dslm.models.family import family
    from megatron.dslm.training.launch import launch

    model = family(run.model).model()
    launch(args, "studies.depth_use", lambda job: connection.send(_losses(args, model, job)))


def _losses(args: argparse.Namespace, model: Any, job: Any) -> dict[str, float]:
    from megatron.dslm.data.batches import batch_iterator
    from megatron.dslm.data.datasets import build_datasets
    from megatron.dslm.models.build import build_chunks, wrap_chunks
    from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
    from megatron.dslm.training.pretrained import load_pretrained
    from megatron.dslm.training.step import Trainer

    _, valid_set, _ = build_datasets(args, model.dataset(args), job.stop)
    chunks, _ = build_chunks(args, model.provide_model, initialize=False)
    load_pretrained(args, chunks, None)
    layers = (chunks[0].decoder if hasattr(chunks[0], "decoder") else chunks[0].encoder).layers
    chunks = wrap_chunks(args, chunks)
    optimizer = build_optimizer(args, chunks)
    trainer = Trainer(args, chunks, model.forward_step, optimizer, build_scheduler(args, optimizer))
    found = {}
    for name, numbers in VARIANTS.items():
        with skipped(layers, numbers(len(layers))):
            found[name] = trainer.evaluate([batch_iterator(args, valid_set, 0)], args.eval_iters)["lm loss"]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The losses in Markdown, a row a model."""
    lines = ["| scheme, learning rate | layers | " + " | ".join(VARIANTS) + " |", "|---|---|" + "---|" * len(VARIANTS)]
    for row in rows:
        cells = [f"{row['losses'][name]:.3f}" for name in VARIANTS]
        lines.append(f"| `{row['run']}` | {row['layers']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Trains, measures, prints a table and writes results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", type=int, default=[6, 48])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batches", type=int, default=32, help="of validation data (default 32)")
    add_running_options(parser)
    args = parser.parse_args()
    rows = []
    try:
        for layers in sorted(args.layers, reverse=True):
            setting = Setting("gpt", layers, args.steps)
            runs = [run_of(setting, scheme, lr) for scheme, lr in SCHEMES_AND_RATES]
            folder = args.folder / "depth-use" / f"{layers}-layers"
            train_all(runs, folder, jobs=args.jobs, keep=True)
            rows += [
                {"run": run.name, "layers": layers, "losses": losses(run, folder / run.name, args.batches)}
                for run in runs
            ]
    except (StudyError, RuntimeError) as error:
        parser.error(str(error))
    found = json.dumps({"steps": args.steps, "models": rows}, indent=1)
    (args.folder / "depth-use" / "results.json").write_text(found + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
