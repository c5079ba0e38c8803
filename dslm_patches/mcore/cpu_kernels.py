"""megatron-core's models by the CPU's own operations: linears, attention, residual adds, dropout, loss.

Layers are built with them from a spec (`with_cpu_kernels`). What a model builds around its layers, no spec chooses:
`use_cpu_kernels_around_layers` replaces it. `use_cpu_kernels` does both to a model that is built already.
"""

import copy
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from dslm_patches.kernels import Dropout, cross_entropy
from dslm_patches.mcore.cpu_attention import CpuSelfAttention, use_cpu_attention
from dslm_patches.mcore.cpu_linear import (
    CpuColumnParallelLinear,
    CpuMlpInput,
    CpuRowParallelLinear,
    add_bias_in_product,
    cpu_linear,
)
from dslm_patches.mcore.residual import cpu_bias_dropout_add, with_cpu_kernel

_ON_CPU: dict[Any, Any] = {
    ColumnParallelLinear: CpuColumnParallelLinear,
    RowParallelLinear: CpuRowParallelLinear,
    SelfAttention: CpuSelfAttention,
    get_bias_dropout_add: cpu_bias_dropout_add,
}
"""What a layer spec names, and what computes the same on CPU."""


def with_cpu_kernels(spec: ModuleSpec) -> ModuleSpec:
    """A copy of a megatron-core layer spec whose layers compute the same on CPU, faster, by `dslm_patches.kernels`.

    Use it before or after `with_norm_placement`, and `use_cpu_kernels_around_layers` on the model built from it.
    Parameters, checkpoints and layouts stay what they are; dropout draws other masks. Parts other than megatron-core's
    own (Transformer Engine's, somebody's) stay as they are.
    """
    return _on_cpu(copy.deepcopy(spec))


def use_cpu_kernels(model: nn.Module) -> nn.Module:
    """Makes a megatron-core model on CPU compute the same, faster, by `dslm_patches.kernels`.

    Call it on each unwrapped model chunk, before or after `apply_scheme`. Parameters, checkpoints and layouts stay what
    they are; dropout draws other masks. What these operations do not cover (sliding windows, attention sinks, biases of
    the logits) goes on as before. A model whose layers are built from `with_cpu_kernels(spec)` needs
    `use_cpu_kernels_around_layers` alone.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, (ColumnParallelLinear, RowParallelLinear)):
            module._forward_impl = cpu_linear
        elif type(module) is MLP:
            add_bias_in_product(module.linear_fc1)
        elif isinstance(module, TransformerLayer):
            for name in ("self_attn_bda", "cross_attn_bda", "mlp_bda"):
                setattr(module, name, with_cpu_kernel(getattr(module, name)))
        for name, child in module.named_children():
            if name == "core_attention":
                use_cpu_attention(child)
    return use_cpu_kernels_around_layers(model)


def use_cpu_kernels_around_layers(model: nn.Module) -> nn.Module:
    """The same for what megatron-core's models build around their layers: dropout of the embeddings, the linear of the
    logits, the language model's loss. No spec and no argument of their constructors chooses these.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, LanguageModelEmbedding) and type(module.embedding_dropout) is nn.Dropout:
            module.embedding_dropout = Dropout(module.embedding_dropout.p)
        elif isinstance(module, LanguageModule):
            module.compute_language_model_loss = partial(_loss, module.pg_collection.tp)
            logits = getattr(module, "output_layer", None)
            if isinstance(logits, ColumnParallelLinear):
                logits._forward_impl = cpu_linear
    return model


def _on_cpu(part: Any) -> Any:
    """A part of a spec, changed in place where it has parts itself, and what takes its place."""
    if isinstance(part, partial):  # newer versions of megatron-core give an MLP so
        return partial(_on_cpu(part.func), *part.args, **{name: _on_cpu(one) for name, one in part.keywords.items()})
    if is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            setattr(part, field.name, _on_cpu(getattr(part, field.name)))
        if isinstance(part, MLPSubmodules) and part.linear_fc1 is CpuColumnParallelLinear:
            part.linear_fc1 = CpuMlpInput
        return part
    # Classes and functions alone: other values need not have a hash.
    return _ON_CPU.get(part, part) if callable(part) else part


def _loss(group: Any, labels: Tensor, logits: Tensor) -> Tensor:
    """In place of LanguageModule.compute_language_model_loss: [b, s] of labels [b, s] and logits [s, b, v]."""
    return cross_entropy(logits, labels.t().contiguous(), group).t().contiguous()
