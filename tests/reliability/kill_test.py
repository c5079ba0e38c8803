"""kill -9 of random ranks at random moments, many inside a save, and a run that ends as if nothing had been.

    python tests/reliability/kill_test.py --kills 50

One torchrun with two ranks (TP 2, dropout on, a checkpoint every second iteration, every other run by --async-save)
starts its ranks again after each kill. At every start the checkpoints that were complete at the kill must be there.
In the end the loss curves, the traces and the weights must equal an uninterrupted run's, bit for bit.
"""

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.dslm.checkpoints.folder import find_checkpoint, iteration_folder, saved_iterations
from megatron.dslm.checkpoints.manifest import check_digests, check_sizes, read_manifest
from tests.corpus import prepare
from tests.curves import curves
from tests.reliability.runs import TP2, Run, command

ITERATIONS_PER_KILL = 4


@dataclass
class Counts:
    """What happened."""

    kills: int = 0
    inside_a_save: int = 0
    of_all_ranks: int = 0
    resumed_from: list[int] = field(default_factory=list)


def complete(root: Path) -> dict[int, Any]:
    """The manifests of the complete checkpoints, by iteration."""
    folders = {number: iteration_folder(str(root), number) for number in saved_iterations(str(root))}
    return {number: read_manifest(one) for number, one in folders.items() if check_sizes(one) is None}


def is_saving(root: Path) -> bool:
    """Whether a checkpoint is being written now."""
    return any(root.glob("iter_*.incomplete-*"))


def wait_for_a_moment(root: Path, before: set[psutil.Process], run: Run, chance: random.Random) -> list[psutil.Process]:
    """The ranks of this start, at a moment to kill them: often when a save has just begun, now and then early on."""
    ranks: list[psutil.Process] = []
    while len(ranks) < 2 or before & set(ranks):
        assert run.process.poll() is None, run.output()[-3000:]
        ranks = run.ranks()
        time.sleep(0.05)
    kind = chance.choices(("start", "save", "between"), (0.2, 0.5, 0.3))[0]
    if kind == "start":
        time.sleep(chance.uniform(0, 8))
        return ranks
    latest = max(complete(root), default=0)
    while run.process.poll() is None:
        if max(complete(root), default=0) > latest:
            break
        time.sleep(0.02)
    if kind == "save":
        while not is_saving(root) and run.process.poll() is None:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.015))
    else:
        time.sleep(chance.uniform(0, 0.5))
    return ranks


def kill_until_done(folder: Path, iterations: int, kills: int, seed: int, extra: list[str]) -> Counts:
    """Trains, kills `kills` times, and lets the rest of the run be."""
    chance, counts = random.Random(seed), Counts()
    root = folder / "save"
    argv = command(folder, iterations, *TP2, "--save-interval", "2", "--keep-last", "3", *extra)
    run = Run(argv, torchrun=("--max-restarts", str(kills)))
    before: set[psutil.Process] = set()
    early, last = 0, 0
    while counts.kills < kills:
        ranks = wait_for_a_moment(root, before, run, chance)
        if run.process.poll() is not None:
            break
        before = set(ranks)
        victims = ranks if chance.random() < 0.25 else [chance.choice(ranks)]
        kept, saving = complete(root), is_saving(root)
        for one in victims:
            one.send_signal(signal.SIGKILL)
        after = complete(root)
        lost = [number for number in kept if number not in after and number > max(after, default=0) - 6]
        assert not lost, f"checkpoints {lost} were complete and are not there any more"
        newest = max(after, default=0)
        problem = check_digests(iteration_folder(str(root), newest), after[newest]) if newest else None
        assert problem is None, problem
        counts.kills += 1
        early += newest == last  # this start was killed before it had saved, perhaps before it had resumed
        last = newest
        counts.inside_a_save += saving
        counts.of_all_ranks += len(victims) == len(ranks)
        moment = "in a save" if saving else "between saves"
        print(f"kill {counts.kills}: {len(victims)} rank(s), {moment}, at {newest}", flush=True)
    code, output = run.wait(600)
    assert code == 0, output[-3000:]
    counts.resumed_from = [int(one) for one in re.findall(r"^resumed from .* at iteration (\d+) of", output, re.M)]
    assert counts.resumed_from == sorted(counts.resumed_from), "a start went on from less than there was"
    assert len(counts.resumed_from) >= counts.kills - early, output[-3000:]
    assert not run.left_over()
    assert not is_saving(root), "a folder of a killed save was left"
    return counts


def tensors(root: Path) -> dict[str, Any]:
    """The tensors of the newest checkpoint."""
    import torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder = find_checkpoint(str(root))
    assert folder is not None
    with tempfile.TemporaryDirectory() as place:
        dcp_to_torch_save(folder, f"{place}/whole.pt")
        whole = torch.load(f"{place}/whole.pt", weights_only=False)
    return {name: one for name, one in whole.items() if isinstance(one, torch.Tensor)}


def check(kills: int, seed: int, folder: Path, extra: list[str]) -> dict[str, Any]:
    """Runs both, compares them, and tells what happened."""
    import torch

    prepare()
    iterations = ITERATIONS_PER_KILL * kills + 8
    begun = time.monotonic()
    code, output = Run(command(folder / "straight", iterations, *TP2, *extra)).wait(600)
    assert code == 0, output[-3000:]
    counts = kill_until_done(folder / "killed", iterations, kills, seed, extra)
    assert curves(folder / "killed") == curves(folder / "straight")
    traces = [(folder / name / "board" / "trace.jsonl").read_text() for name in ("killed", "straight")]
    assert traces[0] == traces[1]
    killed, straight = (tensors(folder / name / "save") for name in ("killed", "straight"))
    assert killed.keys() == straight.keys()
    different = [name for name in killed if not torch.equal(killed[name], straight[name])]
    assert not different, different
    return {
        **vars(counts),
        "iterations": iterations,
        "tensors_equal": len(killed),
        "seconds": round(time.monotonic() - begun),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--async-save", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = check(args.kills, args.seed, Path(folder), ["--async-save"] if args.async_save else [])
    print(json.dumps({"test": "kill", "seed": args.seed, "async_save": args.async_save, **counts}))


if __name__ == "__main__":
    main()
