"""A whole pretraining run."""

import gc
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

from megatron.dslm.checkpoints.load import load_checkpoint, newest_checkpoint
from megatron.dslm.checkpoints.saved_arguments import notes_on_resume, read_arguments
from megatron.dslm.data.baselines import baselines
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.run_folder import mark_folders
from megatron.dslm.logging.summary import model_roles, print_summary
from megatron.dslm.logging.utilization import step_flops
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.pretrained import load_pretrained, told
from megatron.dslm.ranks import from_first_rank, settle_run_id
from megatron.dslm.training.launch import Job, launch
from megatron.dslm.training.loop import Loop
from megatron.dslm.training.optimization import build_optimizer, build_scheduler
from megatron.dslm.training.step import Trainer
from megatron.dslm.training.traced_steps import TracedSteps


def pretrain(args: Namespace, model: ModuleType) -> None:
    """Trains `model` (megatron.dslm.models.bert or .gpt) as the arguments say, resuming from --load.

    Leaves as `launch` says.
    """
    launch(args, f"pretrain_{args.model}.py", lambda job: _Run(args, model, job).train())


class _Run:
    """The parts of a run, and the loop over them."""

    def __init__(self, args: Namespace, model: ModuleType, job: Job) -> None:
        self.args = args
        self.train_set, self.valid_set, self.test_set = build_datasets(args, model.dataset(args), job.stop)
        checkpoint = newest_checkpoint(args, args.load, "--load", print) if args.load else None
        chunks, scheme = build_chunks(args, model.provide_model, initialize=checkpoint is None)
        new: list[str] = []
        if checkpoint is None and args.pretrained_checkpoint:
            new = load_pretrained(args, chunks, None)
        sets = {"train": self.train_set, "validation": self.valid_set, "test": self.test_set}
        samples = {name: one.epoch_size for name, one in sets.items() if one is not None}
        counted = from_first_rank(baselines(args, model.dataset(args)) if args.rank == 0 else None)
        print_summary(args, chunks, scheme, model_roles(args), samples, counted)
        chunks = wrap_chunks(args, chunks)
        optimizer = build_optimizer(args, chunks)
        self.trainer = Trainer(args, chunks, model.forward_step, optimizer, build_scheduler(args, optimizer))
        self.iteration, run = (0, {}) if checkpoint is None else load_checkpoint(args, checkpoint, self.trainer)
        self._begun = self.iteration, self.trainer.consumed_samples
        settle_run_id(args, None if checkpoint is None else read_arguments(checkpoint).get("run_id"))
        if args.rank == args.world_size - 1:
            mark_folders(args)
        self.progress = Progress(args, self.iteration, flops=step_flops(args))
        if counted is not None:
            self.progress.draw_baselines("lm loss", counted.values())
        if checkpoint is not None:
            self.progress.say(f"resumed from {checkpoint} at iteration {self.iteration} of {args.train_iters}")
            for note in notes_on_resume(args, read_arguments(checkpoint), checkpoint):
                self.progress.say(note)
        elif args.pretrained_checkpoint:
            self.progress.say(told(args.pretrained_checkpoint, new))
        elif args.load:
            self.progress.say(f"no checkpoint in {args.load}: starting anew")
        traces = TracedSteps(args, chunks, scheme, self.progress, self.iteration) if args.trace_interval else None
        self.loop = Loop(args, self.trainer, self.progress, traces, job, self.iteration, run)

    def train(self) -> None:
        """Trains from where the run stands to --train-iters, to an --exit-interval, or until asked to leave."""
        args = self.args
        if self.iteration >= args.train_iters:
            self.progress.say(
                f"done already: iteration {self.iteration} is trained, and {args.train_iters} were asked for"
            )
        else:
            self._train()
        self.loop.close()
        self.progress.close()

    def _train(self) -> None:
        args = self.args
        if self.iteration == 0 or self.loop.evaluation_due:
            self._evaluate(self.valid_set, "validation")
        iterators = self._data_after(self.iteration)
        # Model and optimizer stay: the collector need not walk them again and again (a tenth of a 1000-layer step).
        gc.collect()
        gc.freeze()
        self.progress.start()
        leaving = False
        while not leaving:
            self.iteration += 1
            self.loop.step(self.iteration, iterators, partial(self._data_after, self.iteration - 1))
            asked = self.loop.asked_to_leave(self.iteration)
            done = self.iteration == args.train_iters
            leaving = done or bool(args.exit_interval and self.iteration % args.exit_interval == 0)
            due = done or self.iteration % args.eval_interval == 0
            if asked and not done:  # by someone who may not wait for an evaluation
                self.loop.save(self.iteration, leaving=True, evaluation_due=due)
                break
            if due:
                self.loop.poll()
                self._evaluate(self.valid_set, "validation")
            if leaving or (args.save_interval and self.iteration % args.save_interval == 0):
                self.loop.save(self.iteration, leaving=leaving)
        if self.iteration == args.train_iters:
            self._evaluate(self.test_set, "test")

    def _data_after(self, iteration: int) -> list[Iterator[Any]]:
        begun, consumed = self._begun
        return self._iterators(self.train_set, consumed + (iteration - begun) * self.args.global_batch_size)

    def _iterators(self, dataset: Any, consumed: int) -> list[Iterator[Any]]:
        """One a model chunk, all over the same samples: each chunk takes every micro-batch once."""
        return [batch_iterator(self.args, dataset, consumed) for _ in self.trainer.chunks]

    def _evaluate(self, dataset: Any, split: str) -> None:
        if not self.args.eval_iters or dataset is None:
            return
        with self.progress.pause():
            losses = self.trainer.evaluate(self._iterators(dataset, 0), self.args.eval_iters)
        self.progress.evaluated(self.iteration, losses, split)
