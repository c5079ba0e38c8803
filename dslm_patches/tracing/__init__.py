"""Measures a megatron-core model's layers while it trains, exactly, whatever the layout."""

from dslm_patches.tracing.forward_variance import ForwardVariance

__all__ = ["ForwardVariance"]
