"""The residual add with its bias, dropout and two coefficients: x' = skip x + dropout(branch (f(x) + bias))."""

from typing import Any

import torch
from torch import Tensor

from dslm_patches.kernels.dropout import DropoutMask


def residual_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, p: float, skip: float = 1.0, branch: float = 1.0
) -> Tensor:
    """skip residual + branch dropout(x + bias), in three passes over memory, or four with a skip that is not 1.

    Args:
        x, residual: [..., h], of one dtype.
        bias: [h].
        p: probability of dropping an element; 0 in evaluation.
    """
    return _ResidualAdd.apply(x, bias, residual, p, skip, branch)


class _ResidualAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, residual: Tensor, p: float, skip: float, branch: float
    ) -> Tensor:
        ctx.skip, ctx.branch, ctx.mask = skip, branch, None
        if bias is not None:
            x = x + bias
        if p == 0:
            out = residual * skip if skip != 1 else residual
            return torch.add(out, x, alpha=branch)
        ctx.mask = mask = DropoutMask(x.numel(), p)
        ctx.branch = branch = branch * mask.scale
        kept = mask.write(torch.empty(x.shape, dtype=x.dtype))
        if skip == 1:
            return torch.addcmul(residual, x, kept, value=branch)
        return torch.mul(residual, skip).addcmul_(x, kept, value=branch)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None, None]:
        gradient = gradients[0]
        if ctx.mask is None:
            of_x = gradient * ctx.branch
        else:
            of_x = ctx.mask.write(torch.empty(gradient.shape, dtype=gradient.dtype)).mul_(gradient).mul_(ctx.branch)
        of_bias = of_x.reshape(-1, of_x.size(-1)).sum(0) if ctx.needs_input_grad[1] else None
        of_residual = gradient * ctx.skip if ctx.skip != 1 else gradient
        return of_x, of_bias, of_residual, None, None, None
