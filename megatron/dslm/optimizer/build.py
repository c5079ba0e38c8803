"""Optimizer and learning-rate schedule, megatron-core's own."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron.dslm.models.mcore_config import optimizer_config
from megatron.dslm.optimizer.adam_steps import choose_kernel

_NUMBERS = ("max_lr", "min_lr", "betas", "eps", "momentum")


def build_optimizer(args: Namespace, chunks: list[Any]) -> MegatronOptimizer:
    """Adam or SGD over the wrapped chunks; biases and norm weights are not decayed."""
    optimizer = get_megatron_optimizer(optimizer_config(args), chunks)
    choose_kernel(args, optimizer)
    return optimizer


def build_scheduler(args: Namespace, optimizer: MegatronOptimizer) -> OptimizerParamScheduler:
    """Warm-up and decay, counted in samples as Megatron-LM does."""
    batch = args.global_batch_size
    return OptimizerParamScheduler(
        optimizer,
        init_lr=args.lr_warmup_init,
        max_lr=args.lr,
        min_lr=args.min_lr,
        lr_warmup_steps=args.lr_warmup_iters * batch,
        lr_decay_steps=args.lr_decay_iters * batch,
        lr_decay_style=args.lr_decay_style,
        start_wd=args.weight_decay,
        end_wd=args.weight_decay,
        wd_incr_steps=args.train_iters * batch,
        wd_incr_style="constant",
        wsd_decay_steps=args.lr_wsd_decay_iters * batch if args.lr_wsd_decay_iters else None,
        lr_wsd_decay_style=args.lr_wsd_decay_style,
        # A checkpoint's settings were compared with the flags before it is loaded: the flags hold.
        override_opt_param_scheduler=True,
        use_checkpoint_opt_param_scheduler=False,
    )


@contextmanager
def held_settings(optimizer: MegatronOptimizer) -> Iterator[None]:
    """The numbers of the flags stay in the optimizer's groups while a checkpoint's state, which has its own, is loaded.

    Weight decay and the learning rate of the moment are the schedule's, which sets them at each step.
    """
    kept = [{name: group[name] for name in _NUMBERS if name in group} for group in optimizer.param_groups]
    yield
    for group, numbers in zip(optimizer.param_groups, kept, strict=True):
        group.update(numbers)
