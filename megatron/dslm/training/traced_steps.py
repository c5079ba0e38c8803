"""The traced steps of a run: what the tracer saw, to trace.jsonl, TensorBoard and the log."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from dslm_patches.schemes import DepthScheme
from dslm_patches.tracing import Tracer
from dslm_patches.tracing.alerts import NON_FINITE, Alert, AlertLimits, alerts
from dslm_patches.tracing.record import TraceRecord
from dslm_patches.tracing.tensorboard import TensorBoardTraces
from dslm_patches.tracing.trace_file import TraceWriter, read_header
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.trace_header import trace_header
from megatron.dslm.training.step import NonFiniteError


class TracedSteps:
    """Decides which steps are traced, and writes and judges what they show. All ranks call all of it.

    Args:
        args: the run's arguments.
        chunks: this rank's model chunks.
        progress: of the run; the rank that speaks writes.
        iteration: where the run goes on from.

    Raises:
        ValueError: a site the model does not have, or a mode that tracing does not cover.
    """

    def __init__(
        self, args: Namespace, chunks: list[Any], scheme: DepthScheme, progress: Progress, iteration: int
    ) -> None:
        self._args, self._scheme, self._progress = args, scheme, progress
        self._tracer = Tracer(chunks, args.trace_sites)
        self._limits = AlertLimits(args.trace_growth_limit, args.trace_correlation_limit)
        self._resumed = self._iteration = iteration
        self._said: set[str] = set()
        self._writer: TraceWriter | None = None
        self._tensorboard: TensorBoardTraces | None = None

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
        if self._progress.speaks:
            self._write(record, found)
        halting = [alert for alert in found if alert.kind == NON_FINITE]
        if halting and self._args.trace_halt_on:
            report = Path(self._args.trace_dir) / f"non_finite_{record.iteration:07d}.json"
            if self._progress.speaks:
                told = {"alerts": [alert.text for alert in found], **record.as_json()}
                report.write_text(json.dumps(told, indent=1) + "\n")
            raise NonFiniteError(f"iteration {record.iteration}: {halting[0].text}; report in {report}")

    def remove(self) -> None:
        """Takes the tracer's hooks off."""
        self._tracer.remove()

    def _write(self, record: TraceRecord, found: list[Alert]) -> None:
        if self._writer is None:
            self._open(record)
        assert self._writer is not None
        self._writer.write(record)
        if self._tensorboard is not None:
            self._tensorboard.write(record, last=self._is_last(record.iteration))
        for alert in found:
            if alert.kind not in self._said:
                self._progress.say(f"warning: iteration {record.iteration}: {alert.text}")
                if self._tensorboard is not None:
                    self._tensorboard.say(alert.text, record.iteration)
        self._said = {alert.kind for alert in found}

    def _is_last(self, iteration: int) -> bool:
        """Whether no later iteration is traced."""
        return iteration + self._args.trace_interval > self._args.train_iters

    def _open(self, record: TraceRecord) -> None:
        """Opens the files at the first traced step, which says where the predicted gradient starts."""
        args = self._args
        header = trace_header(args, self._scheme, record, lambda text: self._progress.say(f"warning: {text}"))
        self._writer = TraceWriter(args.trace_dir, header, self._resumed)
        if self._progress.writer is not None:
            # A run that goes on keeps its header: the prediction is of the initial weights.
            self._tensorboard = TensorBoardTraces(self._progress.writer, read_header(args.trace_dir))
