"""The traced steps of a run: which they are, and what follows from what they show."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dslm_patches.schemes import DepthScheme
from dslm_patches.tracing import Tracer
from dslm_patches.tracing.alerts import NON_FINITE, AlertLimits, alerts
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.trace_output import TraceOutput
from megatron.dslm.training.step import NonFiniteError, Trainer, require_finite


def train_step(
    trainer: Trainer,
    iterators: list[Iterator[Any]],
    iteration: int,
    progress: Progress,
    traces: "TracedSteps | None",
) -> None:
    """One training step of a run, traced if it is due, and said.

    Raises:
        NonFiniteError: the loss, the gradient norm or, where that is asked for, a traced tensor is not finite.
    """
    due = traces if traces is not None and traces.start(iteration) else None
    losses, grad_norm = trainer.step(iterators, due.gradients_ready if due else None)
    if due:
        due.finish()
    require_finite(losses, grad_norm)
    progress.step(iteration, losses, grad_norm, trainer.optimizer.param_groups[0]["lr"])


class TracedSteps:
    """Decides which steps are traced, and judges what they show. All ranks call all of it.

    Args:
        args: the run's arguments.
        chunks: this rank's model chunks.
        progress: of the run; the rank that speaks writes.
        iteration: where the run goes on from.

    Raises:
        ValueError: on all ranks alike, a site the model does not have, a mode that tracing does not cover, or a
            folder that does not fit.
    """

    def __init__(
        self, args: Namespace, chunks: list[Any], scheme: DepthScheme, progress: Progress, iteration: int
    ) -> None:
        self._args = args
        self._tracer = Tracer(chunks, args.trace_sites)
        self._limits = AlertLimits(args.trace_growth_limit, args.trace_correlation_limit)
        self._iteration = iteration
        self._output: TraceOutput | None = None
        mistake: list[str | None] = [None]
        if progress.speaks:
            try:
                self._output = TraceOutput(args, scheme, progress, iteration)
            except ValueError as error:
                mistake[0] = str(error)
        # The files lie on one rank's machine, and all ranks must leave together.
        torch.distributed.broadcast_object_list(mistake, src=args.world_size - 1)
        if mistake[0] is not None:
            raise ValueError(mistake[0])

    def start(self, iteration: int) -> bool:
        """Starts to measure if this iteration is to be traced.

        From the iteration alone, so that no rank waits for another.
        """
        if iteration != 1 and iteration % self._args.trace_interval:
            return False
        self._iteration = iteration
        self._tracer.start()
        return True

    def gradients_ready(self) -> None:
        """Between the backward pass and the update."""
        self._tracer.gradients_ready()

    def finish(self) -> None:
        """Collects, writes, and says what is wrong.

        Raises:
            NonFiniteError: a traced tensor is not finite and --trace-halt-on says so; the report is saved.
        """
        record = self._tracer.collect(self._iteration)
        found = alerts(record, self._limits)
        if self._output is not None:
            self._output.write(record, found)
        halting = [alert for alert in found if alert.kind == NON_FINITE]
        if halting and self._args.trace_halt_on:
            report = Path(self._args.trace_dir) / f"non_finite_{record.iteration:07d}.json"
            if self._output is not None:
                self._output.report(record, found, report)
            raise NonFiniteError(f"iteration {record.iteration}: {halting[0].text}; report in {report}")

    def remove(self) -> None:
        """Takes the tracer's hooks off."""
        self._tracer.remove()
