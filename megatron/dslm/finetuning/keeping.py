"""Which checkpoints of a fine-tuning run are kept: the last ones, and the weights that evaluated best."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

from megatron.dslm.checkpoint_folder import find_checkpoint, iteration_folder
from megatron.dslm.checkpointing import load_weights, save_checkpoint, save_weights
from megatron.dslm.finetuning.outputs import write_json
from megatron.dslm.ranks import json_of_last_rank
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
            if self._args.rank == self._args.world_size - 1:
                write_json(Path(self._path()), {"iteration": iteration, "score": score})
            if self._args.rank == 0:
                self._prune(self._folder, iteration, 1)
        return True

    def save(self, iteration: int) -> str:
        """Saves a checkpoint to go on from, and removes those beyond --keep-last; its folder."""
        folder = save_checkpoint(self._args, iteration, self._trainer)
        if self._args.rank == 0:
            self._prune(self._args.save, iteration, self._args.keep_last)
        return folder

    def load_best(self) -> str | None:
        """Puts the best weights of this run back into the model; their folder, None if it kept none."""
        if self._folder is None or self._best is None:
            return None
        folder = find_checkpoint(self._folder)
        if folder is not None:
            load_weights(self._trainer.chunks, folder)
        return folder

    def _path(self) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, _SCORE)

    def _kept_score(self, iteration: int) -> float | None:
        if self._folder is None or iteration == 0:
            return None
        saved = json_of_last_rank(self._args, self._path(), ("iteration", "score"))
        return None if saved is None or saved["iteration"] > iteration else saved["score"]

    @staticmethod
    def _prune(folder: str, iteration: int, keep: int) -> None:
        """Leaves `keep` checkpoints up to `iteration`: later ones are of a run that was cut short and begun again."""
        saved = sorted(int(name[5:]) for name in os.listdir(folder) if name.startswith("iter_") and name[5:].isdigit())
        for number in saved:
            if number not in [one for one in saved if one <= iteration][-keep:]:
                shutil.rmtree(iteration_folder(folder, number))
