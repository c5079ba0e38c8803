"""megatron-core's parallel linears, on CPU."""

from typing import Any

from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from dslm_patches.kernels import linear


def cpu_linear(
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


class CpuColumnParallelLinear(ColumnParallelLinear):
    """The same function by `dslm_patches.kernels`."""

    _forward_impl = staticmethod(cpu_linear)


class CpuRowParallelLinear(RowParallelLinear):
    """The same function by `dslm_patches.kernels`."""

    _forward_impl = staticmethod(cpu_linear)


class CpuMlpInput(CpuColumnParallelLinear):
    """An MLP's first linear, which adds its bias in the product: `MLP` asks for it back and adds it in a pass of its
    own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_bias_in_product(self)


def add_bias_in_product(first: Any) -> None:
    """Makes the first linear of an MLP add its bias itself, unless the activation's kernel does."""
    if not first.config.bias_activation_fusion:
        first.skip_bias_add = False
