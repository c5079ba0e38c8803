"""What pretraining and fine-tuning do around each step: trace, judge, save, leave when asked to, show signs of life."""

import math
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from megatron.dslm.checkpoints.save import SaveError
from megatron.dslm.logging.progress import Progress
from megatron.dslm.training.launch import Job
from megatron.dslm.training.saver import Saver
from megatron.dslm.training.step import NonFiniteError, Trainer
from megatron.dslm.training.traced_steps import TracedSteps

_MOST_SKIPPED = 50
"""Steps skipped in a row after which a run cannot be saved by skipping more."""


class Loop:
    """The surroundings of a run's steps. All ranks call all of it.

    Args:
        iteration: where the run goes on from.
        run: of `load_checkpoint`: what the run that saved had in hand; {} at the start.

    Attributes:
        evaluation_due: the run was asked to leave before it evaluated where it goes on from.
    """

    def __init__(
        self,
        args: Namespace,
        trainer: Trainer,
        progress: Progress,
        traces: TracedSteps | None,
        job: Job,
        iteration: int,
        run: dict[str, Any],
    ) -> None:
        self._args, self._trainer, self._progress, self._traces = args, trainer, progress, traces
        self._watchdog, self._stop = job.watchdog, job.stop
        self._saver = Saver(args, trainer, progress, traces, iteration)
        self._in_a_row = 0
        self.evaluation_due = bool(run.get("evaluation_due"))
        self._watchdog.iteration = iteration
        trainer.heartbeat = self._watchdog.beat
        trainer.skipped = run.get("skipped", 0)
        if run:
            progress.load_state_dict(run["progress"])
        if traces is not None:
            traces.load_state_dict(run.get("traces", {}))

    def step(self, iteration: int, iterators: list[Iterator[Any]], again: Callable[[], list[Iterator[Any]]]) -> None:
        """One training step, traced if it is due, and said.

        Args:
            again: iterators that begin with this step's data, in case that it must be looked into.

        Raises:
            NonFiniteError: the loss, the gradient norm or a traced tensor is not finite, and the run is to stop then.
        """
        self._watchdog.step(iteration)
        self.poll()
        try:
            self._step(iteration, iterators, again)
        except NonFiniteError:
            self.poll(wait=True)  # what was being written is of a good step
            raise

    def _step(self, iteration: int, iterators: list[Iterator[Any]], again: Callable[[], list[Iterator[Any]]]) -> None:
        trainer = self._trainer
        due = self._traces if self._traces is not None and self._traces.start(iteration) else None
        losses, grad_norm = trainer.step(iterators, due.gradients_ready if due else None)
        if due:
            due.finish()
        if math.isfinite(grad_norm):
            self._in_a_row = 0
        else:
            self._not_finite(iteration, losses, grad_norm, again)
            losses = {}
        rate = trainer.optimizer.param_groups[0]["lr"]
        self._progress.step(iteration, losses, grad_norm, rate, trainer.skipped)

    def asked_to_leave(self, iteration: int) -> bool:
        """Whether a rank received SIGTERM or SIGUSR1, once a step."""
        number = self._stop.agreed()
        if number:
            self._progress.say(f"{signal.Signals(number).name} received: leaving after iteration {iteration}")
        return bool(number)

    def save(self, iteration: int, *, leaving: bool, evaluation_due: bool = False) -> None:
        """Saves if --save says where; on the disk when this returns if the run is leaving.

        Raises:
            SaveError: it cannot be saved, and the run is leaving.
        """
        with self.paused():
            saved = self._saver.save(iteration, wait=leaving, evaluation_due=evaluation_due)
        if leaving and not saved:
            raise SaveError(f"iteration {iteration} could not be saved to --save {self._args.save}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside counts neither as training nor as a hang."""
        with self._progress.pause(), self._watchdog.pause():
            yield

    def poll(self, *, wait: bool = False) -> None:
        """Looks after a save that is under way."""
        if self._saver.is_saving:
            with self._watchdog.pause():
                self._saver.poll(wait=wait)

    def close(self) -> None:
        """The steps are over: waits for the last save."""
        self._watchdog.rest()
        self._saver.poll(wait=True)

    def _not_finite(
        self, iteration: int, losses: dict[str, float], grad_norm: float, again: Callable[[], list[Iterator[Any]]]
    ) -> None:
        values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        line = f"iteration {iteration}: gradient norm {grad_norm:g}" + (f", {values}" if values else "")
        line += ": not finite, nothing was updated"
        if self._traces is not None:
            line += f"; {self._traces.explain(self._trainer, iteration, again)}"
        self._in_a_row += 1
        if self._args.on_non_finite == "halt":
            raise NonFiniteError(line)
        if self._in_a_row == _MOST_SKIPPED:
            raise NonFiniteError(f"{line}; {_MOST_SKIPPED} iterations in a row were skipped")
        self._progress.say(f"warning: {line}; skipped, {self._trainer.skipped} so far")
