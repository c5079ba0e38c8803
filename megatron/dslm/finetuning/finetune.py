"""A whole fine-tuning run."""

import gc
from argparse import Namespace
from functools import partial
from typing import Any

from dslm_patches.schemes import WeightRole
from megatron.dslm.checkpoints.load import load_checkpoint, newest_checkpoint
from megatron.dslm.checkpoints.saved_arguments import notes_on_resume, read_arguments
from megatron.dslm.finetuning.dataset import ShuffledEpochs, TaskDataset, training_batches
from megatron.dslm.finetuning.judge import Judge
from megatron.dslm.finetuning.keeping import Keeper
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.run_folder import mark_folders
from megatron.dslm.logging.summary import body_roles, print_summary
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.models.classification import forward_step, model_provider
from megatron.dslm.pretrained import load_pretrained, told
from megatron.dslm.ranks import settle_run_id
from megatron.dslm.tasks import TASKS
from megatron.dslm.training.launch import Job, launch
from megatron.dslm.training.loop import Loop
from megatron.dslm.training.optimization import build_optimizer, build_scheduler
from megatron.dslm.training.step import Trainer
from megatron.dslm.training.traced_steps import TracedSteps


def finetune(args: Namespace) -> None:
    """Fine-tunes as the arguments of `parse_finetune_args` say, resuming from --load.

    Leaves as `launch` says.
    """
    launch(args, "finetune.py", lambda job: _Run(args, job).train())


class _Run:
    """The parts of a run, and the loop over them."""

    def __init__(self, args: Namespace, job: Job) -> None:
        self.args, self.task = args, TASKS[args.task]
        checkpoint = newest_checkpoint(args, args.load, "--load", print) if args.load else None
        chunks, scheme = build_chunks(args, model_provider(self.task), initialize=checkpoint is None)
        new = []
        if checkpoint is None and args.pretrained_checkpoint:
            new = load_pretrained(args, chunks, args.task)
        sizes = {name.removesuffix("_data"): sum(len(one) for _, one in of) for name, of in args.examples.items() if of}
        print_summary(args, chunks, scheme, [*body_roles(args), WeightRole.POOLER, WeightRole.BINARY_HEAD], sizes)
        chunks = wrap_chunks(args, chunks)
        optimizer = build_optimizer(args, chunks)
        step = forward_step(self.task, training=True)
        self.trainer = Trainer(args, chunks, step, optimizer, build_scheduler(args, optimizer))
        self.iteration, run = (0, {}) if checkpoint is None else load_checkpoint(args, checkpoint, self.trainer)
        settle_run_id(args, None if checkpoint is None else read_arguments(checkpoint).get("run_id"))
        if args.rank == args.world_size - 1:
            mark_folders(args)
        self.progress = Progress(args, self.iteration, unit="samples", per_step=args.global_batch_size)
        self._say_where_it_starts(checkpoint, new)
        traces = TracedSteps(args, chunks, scheme, self.progress, self.iteration) if args.trace_interval else None
        self.loop = Loop(args, self.trainer, self.progress, traces, job, self.iteration, run)
        self.judge = Judge(args, self.task, self.trainer, self.progress, self.iteration)
        self.keeper = Keeper(args, self.trainer, self.progress, self.iteration)

    def train(self) -> None:
        """Trains from where the run stands to the last epoch, then predicts --test-data by the best weights."""
        args = self.args
        if args.train_iters == 0:
            self._evaluate()
        elif self.iteration >= args.train_iters:
            self.progress.say(
                f"done already: iteration {self.iteration} is trained, and {args.train_iters} were asked for"
            )
        else:
            self._train_epochs()
        self.loop.close()
        if self.iteration >= args.train_iters and args.test_data:
            folder = self.keeper.load_best()
            self.progress.say(f"test data is predicted by {folder or 'the last weights'}")
            self.judge.predict_tests()
        self.progress.close()

    def _train_epochs(self) -> None:
        args = self.args
        dataset = TaskDataset(args, self.task, args.examples["train_data"][0][1])
        self.order = ShuffledEpochs(dataset, args.seed, args.global_batch_size, by_length=args.group_by_length)
        iterators = self._data_after(self.iteration)
        epochs = args.train_iters * args.global_batch_size // len(dataset)
        ends = {-(-epoch * len(dataset) // args.global_batch_size) for epoch in range(1, epochs + 1)}
        # Model and optimizer stay: the collector need not walk them again and again.
        gc.collect()
        gc.freeze()
        if self.loop.evaluation_due:
            self._evaluate()
        self.progress.start()
        leaving = False
        while not leaving:
            self.iteration += 1
            self.loop.step(self.iteration, iterators, partial(self._data_after, self.iteration - 1))
            asked = self.loop.asked_to_leave(self.iteration)
            done = self.iteration == args.train_iters
            leaving = done or bool(args.exit_interval and self.iteration % args.exit_interval == 0)
            due = done or self._due(args.eval_interval, ends)
            if asked and not done:  # by someone who may not wait for an evaluation
                self.loop.save(self.iteration, leaving=True, evaluation_due=due)
                break
            if due:
                self.loop.poll()
                self._evaluate()
            if leaving or self._due(args.save_interval, ends):
                self.loop.save(self.iteration, leaving=leaving)

    def _data_after(self, iteration: int) -> list[Any]:
        consumed = iteration * self.args.global_batch_size
        return [training_batches(self.args, self.order, consumed) for _ in self.trainer.chunks]

    def _due(self, interval: int | None, ends: set[int]) -> bool:
        return self.iteration % interval == 0 if interval else self.iteration in ends

    def _evaluate(self) -> None:
        with self.progress.pause():
            score = self.judge.evaluate(self.iteration)
        with self.loop.paused():
            if self.keeper.is_best(self.iteration, score):
                self.judge.keep()

    def _say_where_it_starts(self, checkpoint: str | None, new: list[str]) -> None:
        args = self.args
        for note in args.notes:
            self.progress.say(f"note: {note}")
        if checkpoint is not None:
            self.progress.say(f"resumed from {checkpoint} at iteration {self.iteration} of {args.train_iters}")
            for note in notes_on_resume(args, read_arguments(checkpoint), checkpoint):
                self.progress.say(note)
        elif args.pretrained_checkpoint:
            self.progress.say(told(args.pretrained_checkpoint, new))
        else:
            self.progress.say("no --pretrained-checkpoint: from the depth scheme's initialisation")
