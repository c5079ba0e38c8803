"""Which checkpoints of a fine-tuning run are kept: the last ones, and the weights that evaluated best."""

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import torch

from megatron.dslm.checkpoint_folder import find_checkpoint
from megatron.dslm.checkpointing import load_weights, save_checkpoint, save_weights
from megatron.dslm.finetuning.outputs import write_json
from megatron.dslm.training.step import Trainer

_SCORE = "score.json"


class Keeper:
    """Saves to --save: the last --keep-last checkpoints, and the best weights in best/. All ranks call all of it.

    Args:
        iteration: where the run goes on from; the best of an earlier run in the folder counts up to there.
    """

    def __init__(self, args: Namespace, trainer: Trainer, iteration: int) -> None:
        self._args, self._trainer = args, trainer
        self._folder = os.path.join(args.save, "best") if args.save else None
        self._best = self._kept_score(iteration)

    def is_best(self, iteration: int, score: float | None) -> bool:
        """Whether a score is above all before; saves the weights if so."""
        if score is None or (self._best is not None and score <= self._best):
            return False
        self._best = score
        if self._folder is not None:
            save_weights(Namespace(**{**vars(self._args), "save": self._folder}), iteration, self._trainer.chunks)
            if self._args.rank == 0:
                write_json(Path(self._path()), {"iteration": iteration, "score": score})
                self._prune(self._folder, 1)
        return True

    def save(self, iteration: int) -> str:
        """Saves a checkpoint to go on from, and removes those beyond --keep-last; its folder."""
        folder = save_checkpoint(self._args, iteration, self._trainer)
        if self._args.rank == 0:
            self._prune(self._args.save, self._args.keep_last)
        return folder

    def load_best(self) -> str | None:
        """Puts the best weights back into the model; their folder, None if there are none."""
        folder = find_checkpoint(self._folder) if self._folder is not None and os.path.isdir(self._folder) else None
        if folder is not None:
            load_weights(self._trainer.chunks, folder)
        return folder

    def _path(self) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, _SCORE)

    def _kept_score(self, iteration: int) -> float | None:
        kept: list[float | None] = [None]
        if self._args.rank == 0 and self._folder is not None and iteration and os.path.isfile(self._path()):
            with open(self._path(), encoding="utf-8") as file:
                saved = json.load(file)
            kept[0] = saved["score"] if saved["iteration"] <= iteration else None
        torch.distributed.broadcast_object_list(kept, src=0)
        return kept[0]

    @staticmethod
    def _prune(folder: str, keep: int) -> None:
        saved = sorted(name for name in os.listdir(folder) if name.startswith("iter_") and name[5:].isdigit())
        for name in saved[:-keep]:
            shutil.rmtree(os.path.join(folder, name))
