"""When a run saves, and what it then says, keeps and survives."""

from argparse import Namespace
from typing import Any

from megatron.dslm.checkpoints.folder import prune
from megatron.dslm.checkpoints.save import Save, SaveError, checkpoint_state
from megatron.dslm.distributed.ranks import from_last_rank
from megatron.dslm.logging.progress import Progress
from megatron.dslm.training.step import Trainer
from megatron.dslm.training.traced_steps import TracedSteps


class Saver:
    """Saves to --save, one save at a time, by --async-save while training goes on. All ranks call all of it.

    A save that fails, of a full disk say, is said and leaves the earlier checkpoints; training goes on.

    Args:
        iteration: where the run goes on from, whose checkpoint is there already.
    """

    def __init__(
        self, args: Namespace, trainer: Trainer, progress: Progress, traces: TracedSteps | None, iteration: int
    ) -> None:
        self._args, self._trainer, self._progress, self._traces = args, trainer, progress, traces
        self._saved = iteration
        self._pending: Save | None = None

    @property
    def is_saving(self) -> bool:
        """Whether a save is under way."""
        return self._pending is not None

    def save(self, iteration: int, *, wait: bool, evaluation_due: bool = False) -> bool:
        """Saves this iteration, if it is not saved yet; whether it is, or is about to be.

        Args:
            wait: until it is on the disk, whatever --async-save says: the run is about to leave.
            evaluation_due: there was no time for the evaluation of this iteration, and who goes on has to do it.
        """
        args = self._args
        if args.save is None:
            return True
        self.poll(wait=True)
        if iteration == self._saved:
            return True
        run = {**self._run_state(), "evaluation_due": evaluation_due}
        try:
            save = Save(args, iteration, checkpoint_state(args, iteration, self._trainer, run))
            if args.async_save and not wait:
                save.start()
                self._pending = save
            else:
                save.write()
                self._complete(save)
        except SaveError as error:
            self._failed(iteration, error)
            return False
        return True

    def poll(self, *, wait: bool = False) -> None:
        """Looks after a save that is under way."""
        save = self._pending
        if save is None:
            return
        try:
            if not save.is_done(wait=wait):
                return
            self._complete(save)
        except SaveError as error:
            self._failed(save.iteration, error)
        self._pending = None

    def _run_state(self) -> dict[str, Any]:
        """What the rank that speaks has in hand between two lines and two traced steps."""
        own = {"progress": self._progress.state_dict()}
        if self._traces is not None:
            own["traces"] = self._traces.state_dict()
        return {**from_last_rank(self._args, own), "skipped": self._trainer.skipped}

    def _complete(self, save: Save) -> None:
        self._saved = save.iteration
        self._progress.say(f"saved {save.folder}")
        if self._args.keep_last is not None and self._args.rank == 0:
            self._progress.guarded(lambda: prune(self._args.save, save.iteration, self._args.keep_last))

    def _failed(self, iteration: int, error: SaveError) -> None:
        kept = f"the checkpoint of iteration {self._saved} is the last" if self._saved else "there is no earlier one"
        self._progress.say(f"warning: iteration {iteration} could not be saved to {self._args.save}: {error}; {kept}")
