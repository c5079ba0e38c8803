"""Puts the CPU's own operations into a built megatron-core model: linears, attention, residual adds, dropout."""

from functools import partial
from typing import Any

from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from dslm_patches.kernels import Dropout, cross_entropy, linear
from dslm_patches.mcore.cpu_attention import use_cpu_attention
from dslm_patches.mcore.residual import with_cpu_kernel


def use_cpu_kernels(model: nn.Module) -> nn.Module:
    """Makes a megatron-core model on CPU compute the same, faster, by `dslm_patches.kernels`.

    Call it on each unwrapped model chunk, before or after `apply_scheme`. Parameters, checkpoints and layouts stay what
    they are; dropout draws other masks. What these operations do not cover (sliding windows, attention sinks, biases of
    the logits) goes on as before.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, (ColumnParallelLinear, RowParallelLinear)):
            module._forward_impl = _linear
        elif type(module) is MLP:
            _add_bias_in_product(module)
        elif isinstance(module, TransformerLayer):
            for name in ("self_attn_bda", "cross_attn_bda", "mlp_bda"):
                setattr(module, name, with_cpu_kernel(getattr(module, name)))
        for name, child in module.named_children():
            if name == "embedding_dropout" and type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
            elif name == "core_attention":
                use_cpu_attention(child)
        if isinstance(module, LanguageModule):
            module.compute_language_model_loss = partial(_loss, module.pg_collection.tp)
    return model


def _add_bias_in_product(mlp: Any) -> None:
    if not mlp.config.bias_activation_fusion:  # which wants the bias
        mlp.linear_fc1.skip_bias_add = False


def _loss(group: Any, labels: Tensor, logits: Tensor) -> Tensor:
    """In place of LanguageModule.compute_language_model_loss: [b, s] of labels [b, s] and logits [s, b, v]."""
    return cross_entropy(logits, labels.t().contiguous(), group).t().contiguous()


def _linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gradient_accumulation_fusion: bool = False,
    allreduce_dgrad: bool = False,
    sequence_parallel: bool = False,
    tp_group: Any = None,
    **_deferred: Any,
) -> Tensor:
    """In place of megatron-core's `linear_with_grad_accumulation_and_async_allreduce`, with its arguments."""
    assert not gradient_accumulation_fusion, "a CUDA extension's"
    if sequence_parallel:
        input = gather_from_sequence_parallel_region(input, tensor_parallel_output_grad=True, group=tp_group)
    elif allreduce_dgrad:
        input = copy_to_tensor_model_parallel_region(input, group=tp_group)
    return linear(input, weight, bias)
