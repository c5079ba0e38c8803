"""A whole pretraining run."""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from dslm_patches.schemes import DepthScheme
from megatron.dslm.data.baselines import baselines
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.ranks import from_first_rank
from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.summary import model_roles, print_summary
from megatron.dslm.logging.utilization import step_flops
from megatron.dslm.models.family import Family, family
from megatron.dslm.training.launch import Job, launch
from megatron.dslm.training.run import Run


def pretrain(args: Namespace) -> None:
    """Trains a model of the family args.model as the arguments say, resuming from --load.

    Leaves as `launch` says.
    """
    own = family(args.model)
    launch(args, own.program, lambda job: Pretraining(args, own, job).train())


class Pretraining(Run):
    """A run over the samples of a corpus, evaluated by its loss."""

    def __init__(self, args: Namespace, own: Family, job: Job) -> None:
        model = own.model()
        dataset = model.dataset(args)
        self.train_set, self.valid_set, self.test_set = build_datasets(args, dataset, job.stop)
        found = baselines(args, dataset, causal=own.causal) if args.rank == 0 else None
        self._baselines = from_first_rank(found)
        super().__init__(args, job, model.provide_model, model.forward_step)
        self._begun = self.iteration, self.trainer.consumed_samples

    def summarize(self, chunks: list[Any], scheme: DepthScheme) -> None:
        """With the size of each split, and what n-grams reach on this text."""
        sets = {"train": self.train_set, "validation": self.valid_set, "test": self.test_set}
        samples = {name: one.epoch_size for name, one in sets.items() if one is not None}
        print_summary(self.args, chunks, scheme, model_roles(self.args), samples, self._baselines)

    def build_progress(self) -> Progress:
        """In tokens, with MFU, over the losses of n-grams."""
        progress = Progress(self.args, self.iteration, flops=step_flops(self.args))
        if self._baselines is not None:
            progress.draw_baselines("lm loss", self._baselines.values())
        return progress

    def data_after(self, iteration: int) -> list[Iterator[Any]]:
        """By the samples that the run has consumed."""
        begun, consumed = self._begun
        return self._iterators(self.train_set, consumed + (iteration - begun) * self.args.global_batch_size)

    def begin(self) -> None:
        """Evaluates the model as it was drawn."""
        if self.iteration == 0:
            self.evaluate()

    def evaluate(self) -> None:
        """On the first samples of the validation split."""
        self._evaluate(self.valid_set, "validation")

    def evaluation_is_due(self) -> bool:
        """At each --eval-interval."""
        return self.iteration % self.args.eval_interval == 0

    def save_is_due(self) -> bool:
        """At each --save-interval."""
        return bool(self.args.save_interval) and self.iteration % self.args.save_interval == 0

    def end(self) -> None:
        """Evaluates the test split once."""
        self._evaluate(self.test_set, "test")

    def _iterators(self, dataset: Any, consumed: int) -> list[Iterator[Any]]:
        """One a model chunk, all over the same samples: each chunk takes every micro-batch once."""
        return [batch_iterator(self.args, dataset, consumed) for _ in self.trainer.chunks]

    def _evaluate(self, dataset: Any, split: str) -> None:
        if not self.args.eval_iters or dataset is None:
            return
        with self.progress.pause():
            losses = self.trainer.evaluate(self._iterators(dataset, 0), self.args.eval_iters)
        self.progress.evaluated(self.iteration, losses, split)
