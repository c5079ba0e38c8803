"""A linear by oneDNN: its fp32 products are a tenth faster than MKL's, which torch takes, and the bias is free."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias, differentiable.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out].
    """
    # Rows outside, as the result is a view of them, and megatron-core's cross entropy works in place.
    rows = x.reshape(math.prod(x.shape[:-1]), x.size(-1))  # not -1, which says nothing where there are no elements
    return _Linear.apply(rows, weight, bias).view(*x.shape[:-1], weight.size(0))


def _one_dnn(dtype: torch.dtype) -> bool:
    """Whether this machine's torch has oneDNN (a Mac's has not), for this dtype."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _one_dnn(rows.dtype) or not rows.numel() or not weight.numel():  # oneDNN knows no empty products
        return F.linear(rows, weight, bias)
    if bias is not None:
        bias = bias.contiguous()  # oneDNN reads the storage on, whatever the strides say
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t(), None) if of_rows else None,
            gradient.t() @ rows if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )
