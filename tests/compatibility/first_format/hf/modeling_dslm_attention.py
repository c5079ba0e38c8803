"""Self-attention with grouped queries and RoPE, through transformers' attention interface; as megatron-core's."""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_dslm import DslmConfig

Weighted = TypeVar("Weighted", nn.Linear, nn.Embedding)


def drawn(module: Weighted, std: float) -> Weighted:
    """The module, marked with the std that its weight is drawn with when it is initialised."""
    module.init_std = std  # type: ignore[assignment]
    return module


Rotation = tuple[Tensor, Tensor]


def rotation(config: DslmConfig, position_ids: Tensor, dtype: torch.dtype) -> Rotation | None:
    """Cosines and sines [b or 1, 1, s, rotated] of RoPE, computed in float32; None with learned positions."""
    if config.position_embedding_type != "rope":
        return None
    assert config.head_dim is not None
    width = int(config.head_dim * config.rotary_percent) if config.rotary_percent < 1.0 else config.head_dim
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=position_ids.device)
    angles = position_ids[:, None, :, None].float() * (1.0 / config.rotary_base ** (steps / width))
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned, passed = x[..., : cos.size(-1)], x[..., cos.size(-1) :]
    first, second = turned.chunk(2, dim=-1)
    return torch.cat((turned * cos + torch.cat((-second, first), dim=-1) * sin, passed), dim=-1)


def eager_attention(
    module: "DslmAttention",
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_unused: Any,
) -> tuple[Tensor, Tensor]:
    """Attention [b, s, heads, d] and its weights [b, heads, s, t] of queries [b, heads, s, d] over keys [.., t, d]."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class DslmAttention(nn.Module):
    """Self-attention with grouped queries, through transformers' attention interface."""

    def __init__(self, config: DslmConfig, layer: int) -> None:
        super().__init__()
        assert config.head_dim is not None
        assert config.num_key_value_heads is not None
        self.config, self.layer_idx, self.head_dim = config, layer, config.head_dim
        self.is_causal = config.causal
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim

        def linear(inputs: int, outputs: int, role: str) -> nn.Linear:
            return drawn(nn.Linear(inputs, outputs, bias=config.use_bias), config.layer_std(role, layer))

        self.q_proj = linear(config.hidden_size, queries, "query")
        self.k_proj = linear(config.hidden_size, keys, "key")
        self.v_proj = linear(config.hidden_size, keys, "value")
        self.o_proj = linear(queries, config.hidden_size, "attention_output")

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: Rotation | None,
        past_key_values: Cache | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The branch's output [b, s, h], and the attention weights where the implementation gives them."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if position_embeddings is not None:
            query, key = _rotate(query, *position_embeddings), _rotate(key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights
