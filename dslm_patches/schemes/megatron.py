"""Megatron-LM's own initialisation: std 0.02, branch outputs divided by sqrt(2 N), no residual scaling."""

import math

from dslm_patches.schemes import scheme
from dslm_patches.schemes.base import DepthScheme, LayerPrescription, SchemeOptions, WeightRole
from dslm_patches.theory.shape import ModelShape

_BRANCH_OUTPUTS = {WeightRole.ATTENTION_OUTPUT, WeightRole.CROSS_OUTPUT, WeightRole.FFN_DOWN}


@scheme("megatron")
def megatron(shape: ModelShape, options: SchemeOptions) -> DepthScheme:
    """std `init_method_std` everywhere, `init_method_std` / sqrt(2 N) where a branch ends (Megatron-LM's code)."""
    std = options.init_method_std
    branch_end = std / math.sqrt(2.0 * shape.num_layers)
    layer = LayerPrescription({role: branch_end if role in _BRANCH_OUTPUTS else std for role in WeightRole})
    return DepthScheme(
        name="megatron",
        norm_placement=options.norm_placement,
        layers=(layer,) * shape.num_layers,
        model_std=dict.fromkeys(WeightRole, std),
    )
