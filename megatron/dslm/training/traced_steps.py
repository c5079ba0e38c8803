"""The traced steps of a run: which they are, and what follows from what they show."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dslm_patches.errors import UserError
from dslm_patches.schemes import DepthScheme
from dslm_patches.tracing import Tracer
from dslm_patches.tracing.alerts import NON_FINITE, Alert, AlertLimits, alerts
from dslm_patches.tracing.record import TraceRecord
from megatron.dslm.distributed.random_states import kept_random_states
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.trace_output import TraceOutput
from megatron.dslm.training.step import NonFiniteError, Trainer


class TracedSteps:
    """Decides which steps are traced, and judges what they show. All ranks call all of it.

    Args:
        args: the run's arguments.
        chunks: this rank's model chunks.
        progress: of the run; the rank that speaks writes.
        iteration: where the run goes on from.

    Raises:
        UserError: on all ranks alike, a site the model does not have, a mode that tracing does not cover, or a
            folder that does not fit.
    """

    def __init__(
        self, args: Namespace, chunks: list[Any], scheme: DepthScheme, progress: Progress, iteration: int
    ) -> None:
        self._args, self._progress = args, progress
        self._tracer = Tracer(chunks, args.trace_sites)
        self._limits = AlertLimits(args.trace_growth_limit, args.trace_correlation_limit)
        self._iteration = iteration
        self._last: tuple[TraceRecord, list[Alert]] | None = None
        self._output: TraceOutput | None = None
        mistake: list[str | None] = [None]
        if progress.speaks:
            try:
                self._output = TraceOutput(args, scheme, progress, iteration)
            except UserError as error:
                mistake[0] = str(error)
        # The files lie on one rank's machine, and all ranks must leave together.
        torch.distributed.broadcast_object_list(mistake, src=args.world_size - 1)
        if mistake[0] is not None:
            raise UserError(mistake[0])

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
        self._last = record, found
        if self._args.trace_halt_on and any(alert.kind == NON_FINITE for alert in found):
            raise NonFiniteError(f"iteration {record.iteration}: {self._report(record, found)}")

    def explain(self, trainer: Trainer, iteration: int, again: Callable[[], list[Iterator[Any]]]) -> str:
        """Where a step that was not finite went wrong, in words and in a report; nothing was updated since.

        A step that was not traced is run again with the tracer on, with other dropout masks.

        Args:
            again: the step's data, from its beginning.
        """
        if self._last is None or self._last[0].iteration != iteration:
            with kept_random_states():
                self._tracer.start()
                trainer.gradients(again())
                self._tracer.gradients_ready()
                record = self._tracer.collect(iteration)
            self._last = record, alerts(record, self._limits)
        return self._report(*self._last)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs so that it says nothing twice; {} where nothing is written."""
        return {} if self._output is None else self._output.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave on the rank that writes."""
        if self._output is not None and state:
            self._output.load_state_dict(state)

    def _report(self, record: TraceRecord, found: list[Alert]) -> str:
        path = Path(self._args.trace_dir) / f"non_finite_{record.iteration:07d}.json"
        if self._output is not None:
            output = self._output
            self._progress.guarded(lambda: output.report(record, found, path))
        first = next((alert.text for alert in found if alert.kind == NON_FINITE), "all traced tensors were finite")
        return f"{first}; report in {path}"

    def remove(self) -> None:
        """Takes the tracer's hooks off."""
        self._tracer.remove()
