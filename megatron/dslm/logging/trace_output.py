"""Where a run's traced steps go: trace.jsonl, TensorBoard and the log, on the rank that speaks."""

import json
from argparse import Namespace
from pathlib import Path

from dslm_patches.errors import UserError
from dslm_patches.schemes import DepthScheme
from dslm_patches.tracing.alerts import Alert, StandingAlerts
from dslm_patches.tracing.record import TraceRecord
from dslm_patches.tracing.tensorboard import TensorBoardTraces
from dslm_patches.tracing.trace_file import NAME, TraceHeader, TraceWriter, read_header
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.trace_header import trace_header


class TraceOutput:
    """Writes records, and says what is wrong when it first appears.

    Args:
        args: the run's arguments.
        progress: the run's.
        iteration: where the run goes on from, above 0 after a resume.

    Raises:
        UserError: the folder cannot be written to, or holds a trace of this run with other sites; the flag is named.
    """

    def __init__(self, args: Namespace, scheme: DepthScheme, progress: Progress, iteration: int) -> None:
        self._args, self._scheme, self._progress, self._resumed = args, scheme, progress, iteration
        self._folder = Path(args.trace_dir)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--trace-dir {self._folder}: {error}") from None
        self._header = self._kept_header()
        self._writer: TraceWriter | None = None
        self._tensorboard: TensorBoardTraces | None = None
        self._broken = False
        self._standing = StandingAlerts(args.lr_warmup_iters)

    def write(self, record: TraceRecord, found: list[Alert]) -> None:
        """A step and its alerts. A folder that can no longer be written to is said once: training goes on."""
        try:
            if not self._broken:
                self._write_files(record)
        except OSError as error:
            self._broken = True
            self._progress.say(f"warning: iteration {record.iteration}: traces are no longer written: {error}")
        for alert in self._standing.new(record.iteration, found):
            self._progress.say(f"warning: iteration {record.iteration}: {alert.text}")
            if self._tensorboard is not None:
                self._tensorboard.say(alert.text, record.iteration)

    def state_dict(self) -> dict[str, dict[str, int]]:
        """The alerts that stand."""
        return {"standing": self._standing.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, int]]) -> None:
        """Puts back what `state_dict` gave; nothing of a run of before alerts had to stand."""
        self._standing.load_state_dict(state.get("standing", {}))

    def report(self, record: TraceRecord, found: list[Alert], path: Path) -> None:
        """Everything about a step that ends the run."""
        content = {"alerts": [alert.text for alert in found], **record.as_json()}
        path.write_text(json.dumps(content, indent=1) + "\n")

    def _write_files(self, record: TraceRecord) -> None:
        if self._writer is None:
            # Not before the first traced step, which says where the predicted gradient starts. A run that goes on
            # keeps its header: the prediction is of the initial weights.
            warn = self._progress.say
            header = self._header or trace_header(
                self._args, self._scheme, record, lambda text: warn(f"warning: {text}")
            )
            self._writer = TraceWriter(self._folder, header, self._resumed)
            if self._progress.writer is not None:
                self._tensorboard = TensorBoardTraces(self._progress.writer, header)
        self._writer.write(record)
        if self._tensorboard is not None:
            last = record.iteration + self._args.trace_interval > self._args.train_iters
            self._tensorboard.write(record, last=last)

    def _kept_header(self) -> TraceHeader | None:
        """The header of the trace that a resumed run goes on with."""
        if not self._resumed or not (self._folder / NAME).is_file():
            return None
        header = read_header(self._folder)
        if (header.num_layers, set(header.sites)) != (self._args.num_layers, set(self._args.trace_sites)):
            raise UserError(
                f"--trace-sites {' '.join(self._args.trace_sites)}: {self._folder / NAME} was begun with "
                f"{' '.join(header.sites)} on {header.num_layers} layers; give the same, or another --trace-dir"
            )
        return header
