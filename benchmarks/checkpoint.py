"""Saving and loading a run's state of 500 MB, beside torch.save and torch.load of the same tensors, in turn.

    python benchmarks/checkpoint.py [--quick] [--folder DISK]

BERT 12 x 512, fp32, Adam, one rank: weights and both moments. Ours is what a run does at --save-interval and --load:
through megatron-core's sharded state, synced to the disk, with checksums, made current by a rename; on loading every
checksum is looked at first. torch.save is done when the operating system has the bytes; with fsync it is the peer of
save_synced. async_save is how long --async-save keeps training waiting, and async_save_whole until it is on the disk.
"""

import dslm_patches.cpu

dslm_patches.cpu.install()  # before megatron-core is imported

# isort: split
import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from report import paired, print_report

from megatron.dslm.arguments import parse_args
from megatron.dslm.checkpoints.load import load_checkpoint, newest_checkpoint
from megatron.dslm.checkpoints.save import Save, checkpoint_state
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.initialize import initialize, shut_down
from megatron.dslm.distributed.libraries import prepare_libraries
from megatron.dslm.models.bert import model as bert
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
from megatron.dslm.training.step import Trainer

FLAGS = """--dslm --num-attention-heads 8 --seq-length 128 --micro-batch-size 1 --train-iters 100000 --lr 1e-4
    --eval-iters 0 --split 90,5,5 --data-path data/wikipedia/bert_text_sentence
    --vocab-file data/wikipedia/bert-vocab.txt --data-cache-path data/wikipedia/cache"""


class Run:
    """A trainer after one step, and ways to save and load it."""

    def __init__(self, folder: str, hidden_size: int) -> None:
        shape = ["--num-layers", "12", "--hidden-size", str(hidden_size)]
        self.folder = folder
        self.args = parse_args("bert", [*FLAGS.split(), *shape, "--save", f"{folder}/ours"])
        initialize(self.args)
        data = build_datasets(self.args, bert.dataset(self.args))[0]
        chunks = wrap_chunks(self.args, build_chunks(self.args, bert.provide_model)[0])
        optimizer = build_optimizer(self.args, chunks)
        self.trainer = Trainer(self.args, chunks, bert.forward_step, optimizer, build_scheduler(self.args, optimizer))
        self.trainer.step([batch_iterator(self.args, data, 0)])
        self.megabytes = sum(one.nbytes for one in self._tensors()) / 1e6

    def _inner(self) -> Any:
        return self.trainer.optimizer.chained_optimizers[0].optimizer

    def _tensors(self) -> list[torch.Tensor]:
        weights = [one.data for one in self.trainer.chunks[0].parameters()]
        return weights + [one for state in self._inner().state.values() for one in state.values() if one.ndim]

    def _save(self) -> Save:
        return Save(self.args, 1, checkpoint_state(self.args, 1, self.trainer, {}))

    def save(self) -> float:
        """Seconds until it is safe."""
        return seconds(lambda: self._save().write())

    def async_save(self) -> tuple[float, float]:
        """Seconds until training goes on, and until it is safe."""
        begun = time.perf_counter()
        save = self._save()
        save.start()
        blocked = time.perf_counter() - begun
        save.is_done(wait=True)
        return blocked, time.perf_counter() - begun

    def load(self) -> float:
        """Seconds to check it and put it into the model and the optimizer."""

        def load() -> None:
            folder = newest_checkpoint(self.args, self.args.save, "--load", print)
            assert folder is not None
            load_checkpoint(self.args, folder, self.trainer)

        return seconds(load)

    def torch_save(self, *, synced: bool = False) -> float:
        """torch.save of the same tensors."""

        def save() -> None:
            with open(f"{self.folder}/torch.pt", "wb") as file:
                torch.save(
                    {"model": self.trainer.chunks[0].state_dict(), "optimizer": self._inner().state_dict()}, file
                )
                if synced:
                    file.flush()
                    os.fsync(file.fileno())

        return seconds(save)

    def torch_load(self) -> float:
        """torch.load of it, into the model and the optimizer."""

        def load() -> None:
            state = torch.load(f"{self.folder}/torch.pt", weights_only=True)
            self.trainer.chunks[0].load_state_dict(state["model"])
            self._inner().load_state_dict(state["optimizer"])

        return seconds(load)


def seconds(act: Callable[[], Any]) -> float:
    """How long it takes, the disk having nothing else to write."""
    os.sync()
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs of a small state: under a minute")
    parser.add_argument("--folder", help="where to write; default the system's temporary folder")
    options = parser.parse_args()
    prepare_libraries()
    folder = tempfile.mkdtemp(dir=options.folder)
    run = Run(folder, 128 if options.quick else 512)
    taken: dict[str, list[tuple[float, float]]] = {}
    for number in range(2 if options.quick else 9):
        blocked, whole = run.async_save()
        pairs = {
            "save": (run.save(), run.torch_save()),
            "save_synced": (run.save(), run.torch_save(synced=True)),
            "load": (run.load(), run.torch_load()),
            "async_save": (blocked, run.torch_save()),
            "async_save_whole": (whole, run.torch_save(synced=True)),
        }
        summary = ", ".join(f"{case} {ours:.2f} / {peer:.2f} s" for case, (ours, peer) in pairs.items())
        print(f"{number + 1}, {run.megabytes:.0f} MB: {summary}", file=sys.stderr, flush=True)
        if number:  # the first writes to new places, of disk and memory
            for case, pair in pairs.items():
                taken.setdefault(case, []).append(pair)
    results = []
    for case, of in taken.items():
        result = paired(case, "seconds", [ours for ours, _ in of], [peer for _, peer in of])
        rates = {f"{side}_mb_per_s": round(run.megabytes / result[side]) for side in ("ours", "peer")}
        results.append({**result, **rates, "state_mb": round(run.megabytes)})
    shutil.rmtree(folder)
    print_report("checkpoint", results)
    shut_down()


if __name__ == "__main__":
    main()
