"""What BERT and GPT under a depth scheme share: embeddings, layers, initialisation. Hidden states are [b, s, h].

The mathematics is that of megatron-core's BertModel and GPTModel with `dslm_patches.mcore`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_dslm import DslmConfig
from .modeling_dslm_attention import DslmAttention, Rotation, drawn
from .prescription_dslm import GATED

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def norm(config: DslmConfig) -> nn.Module:
    """The norm that the configuration names, over the hidden size."""
    kind = nn.LayerNorm if config.normalization == "LayerNorm" else nn.RMSNorm
    return kind(config.hidden_size, eps=config.layer_norm_eps)


class DslmPreTrainedModel(PreTrainedModel):
    """Initialisation by the prescription of the configuration, and what transformers asks of a model class."""

    config: DslmConfig
    base_model: Any
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["DslmLayer"]  # noqa: RUF012  # as transformers spells it

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_model.embeddings.word_embeddings = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights by the std of their role, biases 0, norms 1; what is loaded already is left alone."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            init.normal_(module.weight, std=self._std_of(module))
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            init.ones_(module.weight)
        if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
            init.zeros_(module.bias)

    def _std_of(self, module: nn.Linear | nn.Embedding) -> float:
        std = getattr(module, "init_std", None)
        if std is not None:
            return std
        # Made outside this package: tables that grow with the vocabulary, heads of a user's own.
        return (
            self.config.model_std("word_embedding") if isinstance(module, nn.Embedding) else new_head_std(self.config)
        )


def new_head_std(config: DslmConfig) -> float:
    """Std of a head that the pretrained model did not have: of BERT's binary head, or of GPT's output layer."""
    return config.model_std("output" if config.causal else "binary_head")


class DslmEmbeddings(nn.Module):
    """Sum of the word table, the position table unless RoPE is used, and the token-type table if there is one."""

    def __init__(self, config: DslmConfig) -> None:
        super().__init__()

        def table(rows: int, role: str) -> nn.Embedding:
            return drawn(nn.Embedding(rows, config.hidden_size), config.model_std(role))

        self.word_embeddings = table(config.vocab_size, "word_embedding")
        self.max_length = config.max_position_embeddings
        self.position_embeddings = None
        if config.position_embedding_type == "learned_absolute":
            self.position_embeddings = table(config.max_position_embeddings, "position_embedding")
        self.token_type_embeddings = None
        if config.type_vocab_size > 0:
            self.token_type_embeddings = table(config.type_vocab_size, "tokentype_embedding")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Word vectors [b, s, h] and ids [b or 1, s] to the layers' input [b, s, h].

        Without a token-type table, token types, which BERT's tokenizers always give, say nothing.
        """
        if self.position_embeddings is not None:
            if words.size(1) > self.max_length:
                raise ValueError(
                    f"input_ids: {words.size(1)} tokens, more than max_position_embeddings {self.max_length}"
                )
            words = words + self.position_embeddings(position_ids)
        if self.token_type_embeddings is not None:
            if token_type_ids is None:
                token_type_ids = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
            words = words + self.token_type_embeddings(token_type_ids)
        return self.dropout(words)


class DslmMLP(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x) where the activation is gated."""

    def __init__(self, config: DslmConfig, layer: int) -> None:
        super().__init__()
        assert config.intermediate_size is not None
        inner, outer, bias = config.intermediate_size, config.hidden_size, config.use_bias
        up, down = config.layer_std("ffn_up", layer), config.layer_std("ffn_down", layer)
        gated = config.hidden_act in GATED
        self.gate_proj = drawn(nn.Linear(outer, inner, bias=bias), up) if gated else None
        self.up_proj = drawn(nn.Linear(outer, inner, bias=bias), up)
        self.down_proj = drawn(nn.Linear(inner, outer, bias=bias), down)
        self.activation = _ACTIVATIONS[GATED.get(config.hidden_act, config.hidden_act)]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class DslmLayer(GradientCheckpointingLayer):
    """x' = skip x + branch dropout(f(LN x)); in Post-LN the skip starts at the LayerNorm's output too."""

    def __init__(self, config: DslmConfig, layer: int) -> None:
        super().__init__()
        self.skip_scale, self.branch_scale = config.residual_scales(layer)
        self.post_norm = config.norm_placement == "post"
        self.input_layernorm = norm(config)
        self.self_attn = DslmAttention(config, layer)
        self.pre_mlp_layernorm = norm(config)
        self.mlp = DslmMLP(config, layer)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Rotation | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The layer's output [b, s, h], and its attention weights where the implementation gives them."""
        normed = self.input_layernorm(hidden_states)
        branch, weights = self.self_attn(normed, attention_mask, position_embeddings, past_key_values, **kwargs)
        hidden_states = self._add(normed if self.post_norm else hidden_states, branch)
        normed = self.pre_mlp_layernorm(hidden_states)
        return self._add(normed if self.post_norm else hidden_states, self.mlp(normed)), weights

    def _add(self, skip: Tensor, branch: Tensor) -> Tensor:
        return torch.add(skip * self.skip_scale, self.dropout(branch), alpha=self.branch_scale)


def position_range(words: Tensor, start: int = 0) -> Tensor:
    """Position ids [1, s] of word vectors [b, s, h], from `start`."""
    return torch.arange(start, start + words.size(1), device=words.device).unsqueeze(0)


def run_layers(
    model: Any,
    hidden_states: Tensor,
    *,
    output_hidden_states: bool | None,
    output_attentions: bool | None,
    **kwargs: Any,
) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
    """The last hidden states, and if asked for the embeddings with every layer's output, and attention weights.

    As everywhere in transformers, the last of the hidden states is the final norm's output.

    Args:
        model: has `config`, `layers` and `final_layernorm`.
        output_hidden_states, output_attentions: as the configuration says when None.
    """
    with_states = model.config.output_hidden_states if output_hidden_states is None else output_hidden_states
    with_attentions = model.config.output_attentions if output_attentions is None else output_attentions
    states, attentions = [hidden_states], []
    for layer in model.layers:
        hidden_states, weights = layer(hidden_states, **kwargs)
        if with_states:
            states.append(hidden_states)
        if with_attentions and weights is not None:
            attentions.append(weights)
    hidden_states = model.final_layernorm(hidden_states)
    states[-1] = hidden_states
    return hidden_states, tuple(states) if with_states else None, tuple(attentions) or None
