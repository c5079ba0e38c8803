"""The residual add with two coefficients, in the form of megatron-core's bias-dropout-add seam."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.jit import jit_fuser
from torch import Tensor

from dslm_patches.kernels import residual_add
from dslm_patches.schemes import LayerPrescription

XWithBias = tuple[Tensor, Tensor | None]
BiasDropoutAdd = Callable[[XWithBias, Tensor, float], Tensor]
GetBiasDropoutAdd = Callable[[bool, bool], BiasDropoutAdd]

RESIDUAL_ADDS = ("self_attn_bda", "mlp_bda")
"""The attributes of a layer without cross-attention that hold its two adds."""


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


def _get_scaled_add(training: bool, fused: bool, skip: float, branch: float) -> BiasDropoutAdd:
    if fused:
        function = _scaled_add_fused_train if training else _scaled_add_fused_inference
        return lambda x_with_bias, residual, prob: function(x_with_bias, residual, prob, skip, branch)
    return lambda x_with_bias, residual, prob: _scaled_add(x_with_bias, residual, prob, training, skip, branch)


def cpu_bias_dropout_add(training: bool, fused: bool) -> BiasDropoutAdd:
    """x' = x + dropout(f(x) + bias) by the kernel for the CPU, in the place of megatron-core's `get_bias_dropout_add`.

    Returns:
        The add: (x_with_bias, residual, prob) -> Tensor, all tensors [s, b, h].
    """
    return _get_scaled_add(training, fused, 1.0, 1.0)


PLAIN_ADDS = (get_bias_dropout_add, cpu_bias_dropout_add)
"""The adds without coefficients that may be given some."""


@dataclass(frozen=True)
class ScaledBiasDropoutAdd:
    """x' = skip x + dropout(branch (f(x) + bias)), in the place of megatron-core's `get_bias_dropout_add`.

    Attributes:
        skip: coefficient of the residual (lambda under DeepScaleLM).
        branch: coefficient of the branch (beta).
        plain: what stood in this place, and stands there again where both are 1.
    """

    skip: float
    branch: float
    plain: GetBiasDropoutAdd

    def __call__(self, training: bool, fused: bool) -> BiasDropoutAdd:
        """The add: (x_with_bias, residual, prob) -> Tensor, all tensors [s, b, h]."""
        return _get_scaled_add(training, fused, self.skip, self.branch)


def plain_add(add: Any) -> Any:
    """An add without its coefficients."""
    return add.plain if isinstance(add, ScaledBiasDropoutAdd) else add


def with_cpu_kernel(add: Any) -> Any:
    """megatron-core's add by the kernel for the CPU, under the coefficients that it has; any other add as it is."""
    if plain_add(add) is not get_bias_dropout_add:
        return add
    return replace(add, plain=cpu_bias_dropout_add) if isinstance(add, ScaledBiasDropoutAdd) else cpu_bias_dropout_add


def scale_residuals(layer: Any, prescription: LayerPrescription) -> None:
    """Puts a layer's two residual coefficients on its adds, in place of those that they had."""
    skip, branch = prescription.skip_scale, prescription.branch_scale
    for name in RESIDUAL_ADDS:
        plain = plain_add(getattr(layer, name))
        # Without coefficients it is megatron-core's own add, bit for bit.
        setattr(layer, name, plain if (skip, branch) == (1.0, 1.0) else ScaledBiasDropoutAdd(skip, branch, plain))
