"""A training run: its parts, and the loop over its steps, for pretraining and fine-tuning alike."""

import gc
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dslm_patches.schemes import DepthScheme
from megatron.dslm.checkpoints.load import load_checkpoint, newest_checkpoint
from megatron.dslm.checkpoints.saved_arguments import notes_on_resume, read_arguments
from megatron.dslm.distributed.ranks import settle_run_id
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.run_folder import mark_folders
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.models.family import ModelProvider
from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
from megatron.dslm.training.launch import Job
from megatron.dslm.training.loop import Loop
from megatron.dslm.training.pretrained import describe_pretrained, load_pretrained
from megatron.dslm.training.step import Trainer
from megatron.dslm.training.traced_steps import TracedSteps


class Run(ABC):
    """The parts of a run, and the loop over them. All ranks call all of it.

    Args:
        args: checked arguments, of a run that trains to args.train_iters.
        provide_model: builds its chunks.
        forward_step: one micro-batch through a chunk.
        task: of a fine-tuning run, whose head a pretrained checkpoint may hold.

    Attributes:
        trainer, progress, loop: what takes the steps, what says so, and what surrounds them.
        iteration: the last one that is trained.
    """

    def __init__(
        self,
        args: Namespace,
        job: Job,
        provide_model: ModelProvider,
        forward_step: Callable[..., Any],
        task: str | None = None,
    ) -> None:
        self.args = args
        checkpoint = newest_checkpoint(args, args.load, "--load", print) if args.load else None
        chunks, scheme = build_chunks(args, provide_model, initialize=checkpoint is None)
        new: list[str] = []
        if checkpoint is None and args.pretrained_checkpoint:
            new = load_pretrained(args, chunks, task)
        self.summarize(chunks, scheme)
        chunks = wrap_chunks(args, chunks)
        optimizer = build_optimizer(args, chunks)
        self.trainer = Trainer(args, chunks, forward_step, optimizer, build_scheduler(args, optimizer))
        self.iteration, run = (0, {}) if checkpoint is None else load_checkpoint(args, checkpoint, self.trainer)
        settle_run_id(args, None if checkpoint is None else read_arguments(checkpoint).get("run_id"))
        if args.rank == args.world_size - 1:
            mark_folders(args)
        self.progress = self.build_progress()
        self._say_where_it_starts(checkpoint, new)
        traces = TracedSteps(args, chunks, scheme, self.progress, self.iteration) if args.trace_interval else None
        self.loop = Loop(args, self.trainer, self.progress, traces, job, self.iteration, run)

    @abstractmethod
    def summarize(self, chunks: list[Any], scheme: DepthScheme) -> None:
        """Prints the summary of the unwrapped chunks."""

    @abstractmethod
    def build_progress(self) -> Progress:
        """The progress lines of a run that goes on from self.iteration."""

    @abstractmethod
    def data_after(self, iteration: int) -> list[Iterator[Any]]:
        """Training batches behind those of an iteration, an iterator a chunk."""

    @abstractmethod
    def evaluate(self) -> None:
        """Evaluates the model as it is."""

    @abstractmethod
    def evaluation_is_due(self) -> bool:
        """Whether this iteration, if it isn't the last, ends with an evaluation."""

    @abstractmethod
    def save_is_due(self) -> bool:
        """Whether this iteration, if it isn't the last, ends with a checkpoint."""

    def begin(self) -> None:  # noqa: B027
        """Before the first step of a run that has steps to take."""

    def end(self) -> None:  # noqa: B027
        """After the last of --train-iters, where steps were taken."""

    def finish(self) -> None:  # noqa: B027
        """When all is saved, of a run that may have had nothing to do."""

    def train(self) -> None:
        """Trains from where the run stands to --train-iters, to an --exit-interval, or until asked to leave."""
        asked = self.args.train_iters
        if self.iteration < asked:
            self._train()
        elif asked == 0:
            self.evaluate()
        else:
            self.progress.say(f"done already: iteration {self.iteration} is trained, and {asked} were asked for")
        self.loop.close()
        self.finish()
        self.progress.close()

    def _train(self) -> None:
        args = self.args
        self.begin()
        if self.loop.evaluation_due:
            self.evaluate()
        iterators = self.data_after(self.iteration)
        # Model and optimizer stay: the collector need not walk them again and again (a tenth of a 1000-layer step).
        gc.collect()
        gc.freeze()
        self.progress.start()
        leaving = False
        while not leaving:
            self.iteration += 1
            self.loop.step(self.iteration, iterators, partial(self.data_after, self.iteration - 1))
            asked = self.loop.asked_to_leave(self.iteration)
            done = self.iteration == args.train_iters
            leaving = done or bool(args.exit_interval and self.iteration % args.exit_interval == 0)
            due = done or self.evaluation_is_due()
            if asked and not done:  # by someone who may not wait for an evaluation
                self.loop.save(self.iteration, leaving=True, evaluation_due=due)
                break
            if due:
                self.loop.poll()
                self.evaluate()
            if leaving or self.save_is_due():
                self.loop.save(self.iteration, leaving=leaving)
        if self.iteration == args.train_iters:
            self.end()

    def _say_where_it_starts(self, checkpoint: str | None, new: list[str]) -> None:
        args, say = self.args, self.progress.say
        if checkpoint is not None:
            say(f"resumed from {checkpoint} at iteration {self.iteration} of {args.train_iters}")
            for note in notes_on_resume(args, read_arguments(checkpoint), checkpoint):
                say(note)
        elif args.pretrained_checkpoint:
            say(describe_pretrained(args.pretrained_checkpoint, new))
        elif args.load:
            say(f"no checkpoint in {args.load}: starting anew")
