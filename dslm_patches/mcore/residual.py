"""The residual add with two coefficients, in the form of megatron-core's bias-dropout-add seam."""

from collections.abc import Callable

import torch
from megatron.core.jit import jit_fuser
from torch import Tensor

from dslm_patches.kernels import residual_add

XWithBias = tuple[Tensor, Tensor | None]
BiasDropoutAdd = Callable[[XWithBias, Tensor, float], Tensor]


def _scaled_add(
    x_with_bias: XWithBias, residual: Tensor, prob: float, training: bool, skip: float, branch: float
) -> Tensor:
    x, bias = x_with_bias
    # As megatron-core does: an fp32 residual meeting a half-precision branch must not widen the stream.
    residual = residual if residual.dtype == x.dtype else residual.to(x.dtype)
    if x.device.type == "cpu":
        return residual_add(x, bias, residual, prob if training else 0.0, skip, branch)
    if bias is not None:
        x = x + bias
    x = torch.nn.functional.dropout(x, p=prob, training=training)
    return torch.add(residual * skip, x, alpha=branch)


@jit_fuser
def _scaled_add_fused_train(
    x_with_bias: XWithBias, residual: Tensor, prob: float, skip: float, branch: float
) -> Tensor:
    return _scaled_add(x_with_bias, residual, prob, True, skip, branch)


@jit_fuser
def _scaled_add_fused_inference(
    x_with_bias: XWithBias, residual: Tensor, prob: float, skip: float, branch: float
) -> Tensor:
    return _scaled_add(x_with_bias, residual, prob, False, skip, branch)


def scaled_bias_dropout_add(skip: float, branch: float) -> Callable[[bool, bool], BiasDropoutAdd]:
    """x' = skip x + dropout(branch (f(x) + bias)), to take the place of megatron-core's `get_bias_dropout_add`.

    Args:
        skip: coefficient of the residual (lambda under DeepScaleLM).
        branch: coefficient of the branch (beta).

    Returns:
        A function of (training, fused) that gives the add itself: (x_with_bias, residual, prob) -> Tensor,
        all tensors [s, b, h].
    """

    def get_bias_dropout_add(training: bool, fused: bool) -> BiasDropoutAdd:
        if fused:
            function = _scaled_add_fused_train if training else _scaled_add_fused_inference
            return lambda x_with_bias, residual, prob: function(x_with_bias, residual, prob, skip, branch)
        return lambda x_with_bias, residual, prob: _scaled_add(x_with_bias, residual, prob, training, skip, branch)

    return get_bias_dropout_add
