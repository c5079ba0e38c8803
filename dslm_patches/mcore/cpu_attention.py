"""megatron-core's attention of the local spec, on CPU."""

import weakref
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from torch import Tensor, nn

from dslm_patches.kernels import dropout, dropout_attention

_MASKED = -10000.0
"""What megatron-core's `attention_mask_func` fills masked logits with."""

Seen = tuple[Tensor, Tensor]
"""A mask as numbers: 1 and 0 where a key is seen, 0 and `_MASKED` where not; each [b or 1, s, sk]."""


def use_cpu_attention(core: nn.Module) -> None:
    """Makes a DotProductAttention that is built already a CpuAttention, if it is megatron-core's own."""
    if type(core) is DotProductAttention:
        core.__class__ = CpuAttention  # built, named and loaded as it was: only what it does is another


class CpuAttention(DotProductAttention):
    """The same function by `dropout_attention`; by torch's kernel where there is neither dropout nor padding.

    Attributes:
        skips_site, in_full: a tracer's, which sets `in_full` while it measures the logits at the softmax; that is
            skipped otherwise (`dslm_patches.tracing.skipping.SkipsSite`).
    """

    skips_site: str = "logits"
    in_full: bool = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> Tensor:
        """Context [s, b, heads hn] of query [s, b, heads, hn] and key and value [sk, b, groups, hn]."""
        covered = attention_bias is None and packed_seq_params is None and self._is_plain()
        if not covered or query.dtype not in (torch.float32, torch.bfloat16) or query.device.type != "cpu":
            return super().forward(query, key, value, attention_mask, attn_mask_type, attention_bias, packed_seq_params)
        repeat = self.num_attention_heads_per_partition // self.num_query_groups_per_partition
        if repeat > 1:
            key, value = (one.repeat_interleave(repeat, dim=2) for one in (key, value))
        if self.config.sequence_parallel:
            return self._attend(query, key, value, attention_mask)
        with tensor_parallel.get_cuda_rng_tracker().fork():
            return self._attend(query, key, value, attention_mask)

    def _is_plain(self) -> bool:
        """Whether it has neither attention sinks nor a sliding window nor a scale inside the softmax."""
        softmax: Any = self.scale_mask_softmax
        return self.softmax_offset is None and softmax.window_size is None and softmax.scale is None

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        p = self.attention_dropout.p if self.training else 0.0
        if self.in_full:
            return self._attend_in_full(query, key, value, mask, p)
        causal = mask is None and self.scale_mask_softmax.attn_mask_type == AttnMaskType.causal and query.size(0) > 1
        seen = None if mask is None else _seen(mask, query.dtype)
        if p == 0 and seen is None:
            q, k, v = (one.permute(1, 2, 0, 3) for one in (query, key, value))
            context = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=self.softmax_scale)
            return context.permute(2, 0, 1, 3).reshape(*query.shape[:2], -1)
        if causal:
            seen = _seen(_causal_mask(query.size(0)), query.dtype)
        keep, fill = seen if seen is not None else (None, None)
        return dropout_attention(query, key, value, keep, fill, p, self.softmax_scale)

    def _attend_in_full(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float) -> Tensor:
        """The same with whole matrices, for whoever measures the logits at the softmax; drops the same weights."""
        q, k, v = (one.permute(1, 2, 0, 3) for one in (query, key, value))
        weights = dropout(self.scale_mask_softmax(q @ k.transpose(2, 3) * self.softmax_scale, mask), p)
        return (weights @ v).permute(2, 0, 1, 3).reshape(*query.shape[:2], -1)


class CpuSelfAttention(SelfAttention):
    """megatron-core's self-attention around a CpuAttention, where its spec names a DotProductAttention.

    The spec goes on naming that: BertModel looks there for whether its masks are to be whole matrices.
    """

    def __init__(self, *args: Any, submodules: Any, **kwargs: Any) -> None:
        if submodules.core_attention is DotProductAttention:
            submodules = replace(submodules, core_attention=CpuAttention)
        super().__init__(*args, submodules=submodules, **kwargs)


class _LastMask:
    """The numbers of the last mask that was asked for: all layers of a step are given the same."""

    def __init__(self) -> None:
        self._mask: weakref.ref[Tensor] | None = None
        self._key: Any = None
        self._seen: Seen | None = None

    def __call__(self, mask: Tensor, dtype: torch.dtype) -> Seen | None:
        if mask.is_inference():  # it counts no versions
            return self._numbers(mask, dtype)
        key = (dtype, mask._version)
        if self._mask is None or self._mask() is not mask or key != self._key:
            self._mask, self._key, self._seen = weakref.ref(mask), key, self._numbers(mask, dtype)
        return self._seen

    @staticmethod
    def _numbers(mask: Tensor, dtype: torch.dtype) -> Seen | None:
        if not mask.any():
            return None
        masked = mask[:, 0] if mask.dim() == 4 else mask
        return (~masked).to(dtype), masked.to(dtype) * _MASKED


_seen = _LastMask()
_causal: dict[int, Tensor] = {}


def _causal_mask(length: int) -> Tensor:
    if length not in _causal:
        _causal.clear()
        _causal[length] = torch.ones(1, length, length, dtype=torch.bool).triu(1)
    return _causal[length]
