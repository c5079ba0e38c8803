"""A Post-LN transformer layer: megatron-core has the flag for it and no layer that reads it."""

from collections.abc import Callable
from typing import Any

from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_layer import TransformerLayer
from megatron.core.utils import make_viewless_tensor
from torch import Tensor, nn

from dslm_patches.errors import UserError

_PASSED_TO_ATTENTION = (
    "rotary_pos_emb",
    "rotary_pos_cos",
    "rotary_pos_sin",
    "rotary_pos_cos_sin",
    "attention_bias",
    "packed_seq_params",
    "sequence_len_offset",
)


class PostLNTransformerLayer(TransformerLayer):
    """Each sublayer's skip starts at the LayerNorm's output: h' = skip LN(h) + branch f(LN(h)).

    This is Megatron-LM's --apply-residual-connection-post-layernorm. With the final LayerNorm of the block it
    is the same function as LayerNorm on the embeddings and LN(skip x + branch f(x)) after every sublayer, and
    its parameters have the names of the Pre-LN layer's. Hidden states are [s, b, h].

    Raises:
        UserError: selective recompute of LayerNorm or MLP, which belong to megatron-core's Pre-LN forward.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self.cross_attention, IdentityOp), "specs with cross-attention are refused"
        if self.recompute_input_layernorm or self.recompute_pre_mlp_layernorm or self.recompute_mlp:
            raise UserError(
                "--recompute-modules layernorm and mlp are not available with Post-LN: use "
                "--recompute-granularity full, or core_attn"
            )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        context: Tensor | None = None,
        inference_context: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The layer's output [s, b, h] and the context, as megatron-core's layer returns them."""
        hidden_states = self._sublayer(
            self.input_layernorm,
            self.self_attention,
            self.self_attn_bda,
            hidden_states,
            attention_mask=attention_mask,
            inference_context=inference_context,
            **{name: kwargs[name] for name in _PASSED_TO_ATTENTION if name in kwargs},
        )
        hidden_states = self._sublayer(self.pre_mlp_layernorm, self.mlp, self.mlp_bda, hidden_states)
        output = make_viewless_tensor(inp=hidden_states, requires_grad=hidden_states.requires_grad, keep_graph=True)
        return output, context

    def _sublayer(
        self, norm: nn.Module, branch: nn.Module, bda: Callable[..., Any], hidden_states: Tensor, **kwargs: Any
    ) -> Tensor:
        residual = norm(hidden_states)
        output_with_bias = branch(residual, **kwargs)
        with self.bias_dropout_add_exec_handler():
            return bda(self.training, self.config.bias_dropout_fusion)(output_with_bias, residual, self.hidden_dropout)
