"""The optimizer's update, by the phases that megatron-core's optimizers are made of."""

import math
from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32


@torch.no_grad()
def update_if_finite(optimizer: MegatronOptimizer) -> tuple[bool, float]:
    """What `optimizer.step` does, but for a gradient norm that is not finite: weights and optimizer state then stay.

    The steps of megatron-core's optimizers clip and update in one, so that nobody can ask in between. The zeros among
    the gradients, which they count for who asks for it in their configuration, are left out.

    Args:
        optimizer: fp32, mixed-precision or distributed, or a chain of such; its gradients are there.

    Returns:
        Whether it updated, and the norm of all gradients before clipping, the same on all ranks. The norm is NaN where
        the unscaling of gradients of a scaled loss overflowed.
    """
    if optimizer.prepare_grads():
        return False, math.nan
    norm = float(optimizer.get_grad_norm())
    if not math.isfinite(norm):
        return False, norm
    for one in parts(optimizer):
        parameters, config = one.get_parameters(), one.config
        if parameters and config.clip_grad > 0.0:
            separate = config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
            clip_grad_by_total_norm_fp32(parameters, config.clip_grad, norm, separate)
    return optimizer.step_with_ready_grads(), norm


def parts(optimizer: Any) -> list[Any]:
    """The optimizers of a chain, in its order; of any other the optimizer alone."""
    return getattr(optimizer, "chained_optimizers", [optimizer])
