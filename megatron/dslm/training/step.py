"""One optimizer step, and one evaluation, by megatron-core's schedules."""

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.num_microbatches_calculator import get_num_microbatches
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config

from megatron.dslm.optimizer.update import update_if_finite

Losses = dict[str, float]
"""Loss by name; empty on ranks that do not hold the last pipeline stage."""


class NonFiniteError(RuntimeError):
    """A loss, a gradient norm or a traced tensor is not finite, and the run is to stop."""


@dataclass
class Trainer:
    """What a step works on.

    Attributes:
        chunks: this rank's wrapped model chunks.
        forward_step: the model's, in the form megatron-core's schedules call.
        consumed_samples: training samples that the run has gone through.
        skipped: steps whose update was left out, their loss or gradient norm not being finite.
        heartbeat: called at each forward pass of a micro-batch, for whoever watches whether the run gets on.
    """

    args: Namespace
    chunks: list[Any]
    forward_step: Callable[..., Any]
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler
    consumed_samples: int = 0
    skipped: int = 0
    heartbeat: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        config = get_model_config(self.chunks[0])
        config.grad_scale_func = self.optimizer.scale_loss
        config.finalize_model_grads_func = finalize_model_grads
        if self.args.overlap_grad_reduce:
            hooks = [chunk.no_sync for chunk in self.chunks]
            config.no_sync_func = hooks[0] if len(hooks) == 1 else hooks
        if self.args.overlap_param_gather:
            starts = [chunk.start_param_sync for chunk in self.chunks]
            config.param_sync_func = starts[0] if len(starts) == 1 else starts

    def step(
        self, iterators: list[Iterator[Any]], gradients_ready: Callable[[], None] | None = None
    ) -> tuple[Losses, float]:
        """Forward, backward and update over one global batch; the losses and the gradient norm before clipping.

        Where a loss or the norm is not finite, the norm is not, on all ranks alike, and nothing is updated.

        Args:
            gradients_ready: called between the backward pass and the update.
        """
        losses = self.gradients(iterators)
        self.consumed_samples += self.args.global_batch_size
        if gradients_ready is not None:
            gradients_ready()
        if not all(map(math.isfinite, losses.values())):
            # Known to the last stage alone: by its gradients all ranks learn it, in the reduction of their norm.
            for chunk in self.chunks:
                for parameter in chunk.parameters():
                    parameter.main_grad.fill_(math.nan)
        updated, grad_norm = update_if_finite(self.optimizer)
        if updated:
            self.scheduler.step(increment=self.args.global_batch_size)
        else:
            self.skipped += 1
        return losses, grad_norm

    def gradients(self, iterators: list[Iterator[Any]]) -> Losses:
        """Forward and backward over one global batch: the losses; the gradients are left for an update."""
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        return _average(self._run(iterators, forward_only=False))

    @torch.no_grad()
    def evaluate(self, iterators: list[Iterator[Any]], batches: int) -> Losses:
        """Mean losses over `batches` global batches, dropout off."""
        for chunk in self.chunks:
            chunk.eval()
        totals: Losses = {}
        for _ in range(batches):
            for name, value in _average(self._run(iterators, forward_only=True)).items():
                totals[name] = totals.get(name, 0.0) + value / batches
        for chunk in self.chunks:
            chunk.train()
        return totals

    @torch.no_grad()
    def forward(
        self, iterators: list[Iterator[Any]], microbatches: int, forward_step: Callable[..., Any]
    ) -> list[dict[str, torch.Tensor]]:
        """What `forward_step` reports of each micro-batch, dropout off; empty off the last pipeline stage."""
        for chunk in self.chunks:
            chunk.eval()
        outputs = self._run(iterators, forward_only=True, microbatches=microbatches, forward_step=forward_step)
        for chunk in self.chunks:
            chunk.train()
        return outputs

    def _run(
        self,
        iterators: list[Iterator[Any]],
        *,
        forward_only: bool,
        microbatches: int | None = None,
        forward_step: Callable[..., Any] | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        step = forward_step or self.forward_step

        def beating_step(*args: Any, **kwargs: Any) -> Any:
            self.heartbeat()
            return step(*args, **kwargs)

        return get_forward_backward_func()(
            forward_step_func=beating_step,
            data_iterator=iterators if len(self.chunks) > 1 else iterators[0],
            model=self.chunks if len(self.chunks) > 1 else self.chunks[0],
            num_microbatches=microbatches or get_num_microbatches(),
            seq_length=self.args.seq_length,
            micro_batch_size=self.args.micro_batch_size,
            forward_only=forward_only,
        )


def _average(outputs: list[dict[str, torch.Tensor]]) -> Losses:
    """Mean over micro-batches and data-parallel ranks, in one all-reduce, on the last pipeline stage."""
    if not outputs:
        return {}
    names = list(outputs[0])
    means = torch.stack([torch.stack([output[name] for name in names]) for output in outputs]).mean(0).double()
    group = parallel_state.get_data_parallel_group()
    torch.distributed.all_reduce(means, group=group)
    return dict(zip(names, (means / group.size()).tolist(), strict=True))
