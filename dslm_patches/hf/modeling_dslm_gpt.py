"""GPT under a depth scheme: megatron-core's GPTModel with `dslm_patches.mcore`, for transformers."""

from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_dslm import DslmGPTConfig
from .modeling_dslm_attention import drawn, rotation
from .modeling_dslm_layers import DslmEmbeddings, DslmLayer, DslmPreTrainedModel, norm, position_range, run_layers


class DslmGPTPreTrainedModel(DslmPreTrainedModel):
    """Configuration and prefix of the GPT classes."""

    config_class = DslmGPTConfig
    base_model_prefix = "model"
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012


class DslmGPTModel(DslmGPTPreTrainedModel):
    """Embeddings, layers with causal attention, final norm."""

    def __init__(self, config: DslmGPTConfig) -> None:
        super().__init__(config)
        self.embeddings = DslmEmbeddings(config)
        self.layers = nn.ModuleList(DslmLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.final_layernorm = norm(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Ids [b, s] after those in the cache; attention_mask [b, cached + s] is 0 at padding."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        words = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not self.training:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = position_range(words, past_key_values.get_seq_length() if past_key_values is not None else 0)
        hidden_states = self.embeddings(words, position_ids)
        mask = create_causal_mask(
            self.config, hidden_states, attention_mask, past_key_values=past_key_values, position_ids=position_ids
        )
        hidden_states, states, attentions = run_layers(
            self,
            hidden_states,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            attention_mask=mask,
            position_embeddings=rotation(self.config, position_ids, hidden_states.dtype),
            past_key_values=past_key_values,
            **kwargs,
        )
        return BaseModelOutputWithPast(hidden_states, past_key_values if use_cache else None, states, attentions)


class DslmGPTForCausalLM(DslmGPTPreTrainedModel, GenerationMixin):
    """GPT with the output layer, tied to the word embeddings unless the configuration says otherwise."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: DslmGPTConfig) -> None:
        super().__init__(config)
        self.model = DslmGPTModel(config)
        self.head_scale = config.head_scale
        self.lm_head = drawn(nn.Linear(config.hidden_size, config.vocab_size, bias=False), config.model_std("output"))
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [b, s, v] of the last `logits_to_keep` positions (0: all); labels [b, s] are the ids themselves."""
        output = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept] * self.head_scale)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, output.past_key_values, output.hidden_states, output.attentions)
