"""The next steps' losses after a change of layout: saved under TP x PP x DP, loaded under another, every pair of them.

    python tests/reliability/reshard_table.py

prints the table of docs/reliability.md: for each pair the largest relative difference of the next three steps' losses
from those of a run that kept the layout 1 x 1 x 1. Dropout is off: its masks belong to ranks.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.corpus import data_flags, prepare
from tests.curves import curves
from tests.distributed.pool import RankPool
from tests.reliability.runs import SHAPE

WORKER = "tests.training.pretrain_workers:run"
Layout = tuple[int, int, int]
LAYOUTS: list[Layout] = sorted(itertools.product((1, 2), repeat=3), key=lambda one: (one[0] * one[1] * one[2], one))
SAVED_AT, LAST = 3, 6


def flags(layout: Layout) -> list[str]:
    """Of a run without dropout that is 6 iterations long, its optimizer shared by data-parallel ranks."""
    tp, pp, _ = layout
    training = f"--global-batch-size 4 --micro-batch-size 1 --train-iters {LAST} --lr 1e-3 --eval-iters 0"
    parallel = ["--tensor-model-parallel-size", str(tp), "--pipeline-model-parallel-size", str(pp)]
    parallel += ["--use-distributed-optimizer"]
    dropout = ["--hidden-dropout", "0", "--attention-dropout", "0", "--log-interval", "1", "--trace-interval", "0"]
    return [*SHAPE, *training.split(), *parallel, *dropout, *data_flags("bert")]


def name(layout: Layout) -> str:
    """As in TP 2 x PP 1 x DP 2."""
    return " x ".join(f"{what} {size}" for what, size in zip(("TP", "PP", "DP"), layout, strict=True))


def save(ranks: RankPool, layout: Layout, folder: Path) -> None:
    """A checkpoint of iteration 3."""
    run(ranks, layout, "--save", str(folder), "--exit-interval", str(SAVED_AT))


def next_losses(ranks: RankPool, layout: Layout, saved: Path, place: Path) -> dict[str, dict[int, float]]:
    """The losses of iterations 4 to 6 from a checkpoint on, by name."""
    run(ranks, layout, "--load", str(saved), "--tensorboard-dir", f"{place}/board")
    found = curves(place)
    return {one: found[f"training/{one}"] for one in ("lm loss", "nsp loss")}


def run(ranks: RankPool, layout: Layout, *extra: str) -> None:
    """A whole run, which must end well."""
    world = layout[0] * layout[1] * layout[2]
    argv = [*flags(layout), *extra]
    outcomes = ranks.run(world, WORKER, process_group=False, argv=argv, model="bert")
    assert not any(code for code, _ in outcomes), outcomes[0][1]  # rank 0 says mistakes


def difference(losses: dict[str, dict[int, float]], reference: dict[str, dict[int, float]]) -> float:
    """The largest relative difference."""
    pairs = [(losses[one][step], value) for one, of in reference.items() for step, value in of.items()]
    return max(abs(value - expected) / abs(expected) for value, expected in pairs)


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    prepare()
    pool, reference = RankPool(), None
    print(f"| saved under, loaded under | {' | '.join(name(one) for one in LAYOUTS)} |")
    print(f"|---|{'---|' * len(LAYOUTS)}")
    with tempfile.TemporaryDirectory() as folder:
        for source in LAYOUTS:
            saved = Path(folder) / name(source).replace(" ", "")
            save(pool, source, saved)
            row = []
            for target in LAYOUTS:
                losses = next_losses(pool, target, saved, saved / name(target).replace(" ", ""))
                reference = reference or losses
                row.append(f"{difference(losses, reference):.1e}")
            print(f"| {name(source)} | {' | '.join(row)} |", flush=True)
    pool.close()


if __name__ == "__main__":
    main()
