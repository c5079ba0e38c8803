"""Normalisation layers for megatron-core's local specs that also work under sequence parallelism.

megatron-core's `WrappedTorchNorm` refuses sequence parallelism, though all it takes is to mark the
parameters: each tensor-parallel rank normalises its own part of the sequence, so the gradients of weight and
bias are partial sums, and `finalize_model_grads` all-reduces those of parameters that carry
`sequence_parallel = True`. The computation is torch's own, so results are bit-identical to it.
"""

import torch
from megatron.core.transformer import TransformerConfig


class LayerNorm(torch.nn.LayerNorm):
    """torch's LayerNorm over the last dimension, built as megatron-core's specs build a norm.

    Args:
        config: reads `sequence_parallel`, and refuses what torch's norm cannot do.
        hidden_size: size of the last dimension of the input `[s, b, h]`.
        eps: added to the variance.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_unused: object):
        refuse_unsupported(config)
        super().__init__(hidden_size, eps=eps)
        mark_sequence_parallel(self, config)


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm over the last dimension; arguments as for `LayerNorm`."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_unused: object):
        refuse_unsupported(config)
        super().__init__(hidden_size, eps=eps)
        mark_sequence_parallel(self, config)


class Norm:
    """Builds the norm that `config.normalization` names; takes `WrappedTorchNorm`'s place in a layer spec."""

    def __new__(  # type: ignore[misc]  # a factory, as WrappedTorchNorm is
        cls, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_unused: object
    ) -> LayerNorm | RMSNorm:
        if config.normalization == "LayerNorm":
            return LayerNorm(config, hidden_size, eps)
        if config.normalization == "RMSNorm":
            return RMSNorm(config, hidden_size, eps)
        raise ValueError(
            f"normalization {config.normalization!r} is not supported on CPU: use 'LayerNorm' or 'RMSNorm'"
        )


def refuse_unsupported(config: TransformerConfig) -> None:
    """Raise ValueError for settings of `config` that need a fused norm kernel."""
    for name in ("layernorm_zero_centered_gamma", "persist_layer_norm", "memory_efficient_layer_norm"):
        if getattr(config, name):
            raise ValueError(f"{name} needs a fused norm from Apex or Transformer Engine: set it to False")


def mark_sequence_parallel(norm: torch.nn.Module, config: TransformerConfig) -> None:
    """Tell `finalize_model_grads` whether this norm's gradients are partial sums over the sequence shards."""
    for parameter in norm.parameters():
        parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
