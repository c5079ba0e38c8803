"""Optimizer and learning-rate schedule, megatron-core's own."""

from argparse import Namespace
from typing import Any

from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron.dslm.config import optimizer_config
from megatron.dslm.training.adam_steps import choose_kernel


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
        override_opt_param_scheduler=args.override_opt_param_scheduler,
        use_checkpoint_opt_param_scheduler=not args.override_opt_param_scheduler,
    )
