"""A whole fine-tuning run."""

from argparse import Namespace
from typing import Any

from dslm_patches.schemes import DepthScheme, WeightRole
from megatron.dslm.finetuning.best_checkpoint import BestCheckpoint
from megatron.dslm.finetuning.dataset import ShuffledEpochs, TaskDataset, training_batches
from megatron.dslm.finetuning.evaluator import Evaluator
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.summary import body_roles, print_summary
from megatron.dslm.models.bert_classifier.model import forward_step, model_provider
from megatron.dslm.tasks import TASKS
from megatron.dslm.training.launch import Job, launch
from megatron.dslm.training.run import Run


def finetune(args: Namespace) -> None:
    """Fine-tunes as the arguments of `parse_finetune_args` say, resuming from --load.

    Leaves as `launch` says.
    """
    launch(args, "finetune.py", lambda job: Finetuning(args, job).train())


class Finetuning(Run):
    """A run over epochs of a task's examples, evaluated by its metrics; the best weights are kept."""

    def __init__(self, args: Namespace, job: Job) -> None:
        self.task = TASKS[args.task]
        super().__init__(args, job, model_provider(self.task), forward_step(self.task, training=True), args.task)
        self.evaluator = Evaluator(args, self.task, self.trainer, self.progress, self.iteration)
        self.best = BestCheckpoint(args, self.trainer, self.progress, self.iteration)

    def summarize(self, chunks: list[Any], scheme: DepthScheme) -> None:
        """With the number of examples of each kind of data."""
        args = self.args
        sizes = {name.removesuffix("_data"): sum(len(one) for _, one in of) for name, of in args.examples.items() if of}
        print_summary(args, chunks, scheme, [*body_roles(args), WeightRole.POOLER, WeightRole.BINARY_HEAD], sizes)

    def build_progress(self) -> Progress:
        """In samples, after what was left out of the data."""
        progress = Progress(self.args, self.iteration, unit="samples", per_step=self.args.global_batch_size)
        for note in self.args.notes:
            progress.say(f"note: {note}")
        if not (self.iteration or self.args.pretrained_checkpoint):
            progress.say("no --pretrained-checkpoint: from the depth scheme's initialisation")
        return progress

    def begin(self) -> None:
        """Lays out the epochs."""
        args = self.args
        dataset = TaskDataset(args, self.task, args.examples["train_data"][0][1])
        self._order = ShuffledEpochs(dataset, args.seed, args.global_batch_size, by_length=args.group_by_length)
        epochs = args.train_iters * args.global_batch_size // len(dataset)
        self._ends = {-(-epoch * len(dataset) // args.global_batch_size) for epoch in range(1, epochs + 1)}

    def data_after(self, iteration: int) -> list[Any]:
        """In the order of the epochs."""
        consumed = iteration * self.args.global_batch_size
        return [training_batches(self.args, self._order, consumed) for _ in self.trainer.chunks]

    def evaluate(self) -> None:
        """On every file of --valid-data; keeps the weights if they are the best so far."""
        with self.progress.pause():
            score = self.evaluator.evaluate(self.iteration)
        with self.loop.paused():
            if self.best.is_best(self.iteration, score):
                self.evaluator.keep()

    def evaluation_is_due(self) -> bool:
        """At each --eval-interval, else at the end of an epoch."""
        return self._due(self.args.eval_interval)

    def save_is_due(self) -> bool:
        """At each --save-interval, else at the end of an epoch."""
        return self._due(self.args.save_interval)

    def finish(self) -> None:
        """Predicts --test-data by the best weights."""
        args = self.args
        if self.iteration >= args.train_iters and args.test_data:
            folder = self.best.load_best()
            self.progress.say(f"test data is predicted by {folder or 'the last weights'}")
            self.evaluator.predict_tests()

    def _due(self, interval: int | None) -> bool:
        return self.iteration % interval == 0 if interval else self.iteration in self._ends
