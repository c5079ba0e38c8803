"""The weights of a fine-tuning run that evaluated best."""

import math
import os
from argparse import Namespace
from pathlib import Path

from megatron.dslm.checkpoints.folder import keep_only
from megatron.dslm.checkpoints.load import load_weights, newest_checkpoint
from megatron.dslm.checkpoints.save import SaveError, save_weights
from megatron.dslm.distributed.ranks import json_of_last_rank
from megatron.dslm.finetuning.results import write_json
from megatron.dslm.logging.progress import Progress
from megatron.dslm.training.step import Trainer

_SCORE = "score.json"


class BestCheckpoint:
    """Keeps the best weights in best/ under --save. All ranks call all of it.

    Args:
        iteration: where the run goes on from; the best of an earlier run in the folder counts up to there.
    """

    def __init__(self, args: Namespace, trainer: Trainer, progress: Progress, iteration: int) -> None:
        self._args, self._trainer, self._progress = args, trainer, progress
        self._folder = os.path.join(args.save, "best") if args.save else None
        self._best = self._kept_score(iteration)

    def is_best(self, iteration: int, score: float | None) -> bool:
        """Whether a score is above all before; saves the weights if so."""
        if score is None or not math.isfinite(score) or (self._best is not None and score <= self._best):
            return False
        if self._folder is not None:
            try:
                save_weights(Namespace(**{**vars(self._args), "save": self._folder}), iteration, self._trainer.chunks)
            except SaveError as error:
                self._progress.say(f"warning: the best weights could not be saved to {self._folder}: {error}")
                return False
        self._best = score
        if self._folder is not None:
            folder, content = self._folder, {"score": score, "valid_data": self._args.contents.get("valid_data")}
            if self._args.rank == self._args.world_size - 1:
                self._progress.guarded(lambda: write_json(Path(self._path()), {**content, "iteration": iteration}))
            if self._args.rank == 0:
                self._progress.guarded(lambda: keep_only(folder, iteration))
        return True

    def load_best(self) -> str | None:
        """Puts the best weights of this run back into the model; their folder, None if it kept none."""
        if self._folder is None or self._best is None:
            return None
        folder = newest_checkpoint(self._args, self._folder, "--save", print)
        if folder is not None:
            load_weights(self._trainer.chunks, folder, "--save")
        return folder

    def _path(self) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, _SCORE)

    def _kept_score(self, iteration: int) -> float | None:
        if self._folder is None or iteration == 0:
            return None
        saved = json_of_last_rank(self._args, self._path(), ("iteration", "score"))
        if saved is None or saved["iteration"] > iteration:
            return None
        # Scores of other data (--override-settings valid-data) cannot be compared.
        data = self._args.contents.get("valid_data")
        return saved["score"] if saved.get("valid_data", data) == data else None
