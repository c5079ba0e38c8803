"""Progress lines and TensorBoard curves. Only the last rank, which has the losses, prints and writes."""

import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from megatron.dslm.logging.run_folder import is_written_to
from megatron.dslm.logging.utilization import peak_flops, peak_memory


class Progress:
    """Averages between log intervals, prints one line each, and writes the same to TensorBoard.

    Args:
        args: the run's arguments.
        iteration: where training starts, above 0 after a resume.
        unit, per_step: what the speed is counted in, and how many of it a step takes; tokens by default.
        flops: floating-point operations of a step's matrix products, for MFU; None where steps differ.

    Attributes:
        speaks: whether this rank prints and writes.
        writer: TensorBoard's, on that rank and with --tensorboard-dir; None otherwise.
    """

    def __init__(
        self,
        args: Namespace,
        iteration: int,
        *,
        unit: str = "tokens",
        per_step: int | None = None,
        flops: float | None = None,
    ) -> None:
        self._args = args
        self._flops, self._peak = flops, float("inf")
        self._unit = unit
        self._per_step = args.global_batch_size * args.seq_length if per_step is None else per_step
        self.speaks = args.rank == args.world_size - 1
        self.writer = None
        if self.speaks and args.tensorboard_dir:
            # What a run that was cut short wrote after its last checkpoint is written again: drop the first version.
            again = is_written_to(args.tensorboard_dir)
            self.writer = SummaryWriter(
                args.tensorboard_dir, purge_step=iteration + 1 if iteration else 0 if again else None
            )
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._begun = self._clock = self._paused = 0.0
        self._start_iteration = self._logged = iteration

    def say(self, line: str) -> None:
        """Prints a line of its own."""
        if self.speaks:
            print(line, flush=True)

    def guarded(self, write: Callable[[], object]) -> None:
        """Writes what training does not depend on: where that fails, of a full disk say, it is said and left."""
        try:
            write()
        except OSError as error:
            print(f"warning: not written: {error}", flush=True)

    def scalars(self, group: str, values: dict[str, float], iteration: int) -> None:
        """Points of TensorBoard's curves, by name below `group`. A folder that cannot be written to is said once."""
        if self.writer is None:
            return
        try:
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", value, iteration)
            self.writer.flush()
        except OSError as error:  # of any earlier point: a thread of its own writes them
            self.writer = None
            self.say(f"warning: iteration {iteration}: TensorBoard's curves are no longer written: {error}")

    def draw_baselines(self, loss: str, values: dict[str, float]) -> None:
        """Level lines in the charts of a loss: runs of their own below TensorBoard's folder, named as the values."""
        if self.writer is None:
            return
        for name, value in values.items():
            begin = self._start_iteration  # with other data than before, where they were taken over
            with SummaryWriter(os.path.join(self._args.tensorboard_dir, name), purge_step=begin) as writer:
                for split in ("training", "validation"):
                    for iteration in (begin, self._args.train_iters):
                        writer.add_scalar(f"{split}/{loss}", value, iteration)

    def start(self) -> None:
        """Begins to time training, and measures what MFU is a share of, once a process."""
        if self.speaks and self._flops is not None:
            peak = peak_flops(torch.bfloat16 if self._args.bf16 else torch.float32)
            self._peak = peak * self._args.world_size
        self._begun = self._clock = time.perf_counter()
        self._paused = 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time spent inside (evaluation, saving) is not counted as training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begun

    def state_dict(self) -> dict[str, Any]:
        """What lies between two lines, on the rank that speaks."""
        return {"sums": dict(self._sums), "counted": self._counted, "logged": self._logged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave, so that the next line averages over the same steps."""
        self._sums, self._counted = dict(state["sums"]), state["counted"]
        self._logged = state["logged"]

    def step(self, iteration: int, losses: dict[str, float], grad_norm: float, lr: float, skipped: int = 0) -> None:
        """Counts one optimizer step in; prints and writes at --log-interval and at the last.

        Args:
            losses: {} of a step that was skipped.
            skipped: steps skipped so far in the run.
        """
        if not self.speaks:
            return
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += bool(losses)
        args = self._args
        if iteration % args.log_interval and iteration != args.train_iters:
            return
        steps = iteration - max(self._logged, self._start_iteration)
        now = time.perf_counter()
        seconds = (now - self._clock - self._paused) / steps
        whole = (now - self._begun) / (iteration - self._start_iteration)
        left = timedelta(seconds=round((args.train_iters - iteration) * whole))
        speed = self._per_step / seconds
        means = {name: total / self._counted for name, total in self._sums.items()}
        width = len(str(args.train_iters))
        summary = " | ".join(f"{name} {value:.4f}" for name, value in means.items()) or "no finite loss"
        summary += f" | skipped {skipped}" if skipped else ""
        used = self._hardware_in_words(seconds)
        print(
            f"iteration {iteration:>{width}}/{args.train_iters} | {summary} | grad norm {grad_norm:.3f} | lr {lr:.3e} "
            f"| {seconds * 1000:.0f} ms | {speed:,.0f} {self._unit}/s | {used} | ETA {left}",
            flush=True,
        )
        others = {"grad norm": grad_norm, "learning rate": lr, f"{self._unit} per second": speed}
        others |= self._hardware(seconds)
        self.scalars("training", means | others | ({"skipped iterations": skipped} if skipped else {}), iteration)
        self._sums.clear()
        self._counted = 0
        self._logged, self._clock, self._paused = iteration, now, 0.0

    def _hardware(self, seconds: float) -> dict[str, float]:
        """What a step of some seconds uses: MFU as a share, this rank's peak memory in GiB."""
        share = {} if self._flops is None else {"MFU": self._flops / (seconds * self._peak)}
        return share | {"peak memory in GiB": peak_memory()}

    def _hardware_in_words(self, seconds: float) -> str:
        used = self._hardware(seconds)
        share = f"MFU {100 * used['MFU']:.1f} % | " if "MFU" in used else ""
        return f"{share}{used['peak memory in GiB']:.2f} GiB"

    def evaluated(self, iteration: int, losses: dict[str, float], split: str) -> None:
        """Prints and writes the losses of an evaluation."""
        if not self.speaks:
            return
        summary = " | ".join(f"{name} {value:.4f}" for name, value in losses.items())
        print(f"{split} loss at iteration {iteration}: {sum(losses.values()):.4f} | {summary}", flush=True)
        self.scalars(split, {**losses, "loss": sum(losses.values())}, iteration)

    def close(self) -> None:
        """Closes TensorBoard's files."""
        if self.writer is not None:
            self.guarded(self.writer.close)
