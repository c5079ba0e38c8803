"""BERT under a depth scheme: megatron-core's BertModel with `dslm_patches.mcore`, for transformers."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    SequenceClassifierOutput,
)
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_dslm import DslmBertConfig
from .modeling_dslm_attention import drawn, rotation
from .modeling_dslm_bert_heads import DslmBertHeads, DslmBertPooler
from .modeling_dslm_layers import (
    DslmEmbeddings,
    DslmLayer,
    DslmPreTrainedModel,
    new_head_std,
    norm,
    position_range,
    run_layers,
)


class DslmBertPreTrainedModel(DslmPreTrainedModel):
    """Configuration and prefix of the BERT classes."""

    config_class = DslmBertConfig
    base_model_prefix = "bert"


class DslmBertModel(DslmBertPreTrainedModel):
    """Embeddings, layers, final norm, and the pooler on the first token."""

    def __init__(self, config: DslmBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = DslmEmbeddings(config)
        self.layers = nn.ModuleList(DslmLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.final_layernorm = norm(config)
        self.pooler = DslmBertPooler(config) if add_pooling_layer else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Ids [b, s], or word vectors [b, s, h] in their place; attention_mask [b, s] is 0 at padding."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        words = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        position_ids = position_range(words) if position_ids is None else position_ids
        hidden_states = self.embeddings(words, position_ids, token_type_ids)
        hidden_states, states, attentions = run_layers(
            self,
            hidden_states,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            attention_mask=create_bidirectional_mask(self.config, hidden_states, attention_mask),
            position_embeddings=rotation(self.config, position_ids, hidden_states.dtype),
            **kwargs,
        )
        pooled = None if self.pooler is None else self.pooler(hidden_states)
        return BaseModelOutputWithPooling(hidden_states, pooled, states, attentions)


class DslmBertWithPredictions(DslmBertPreTrainedModel):
    """What the classes with a masked-LM head share: its output layer, tied to the word embeddings."""

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}  # noqa: RUF012
    cls: DslmBertHeads

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.cls.predictions.decoder = new_embeddings


class DslmBertForMaskedLM(DslmBertWithPredictions):
    """BERT with the masked-LM head."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__(config)
        self.bert = DslmBertModel(config, add_pooling_layer=False)
        self.cls = DslmBertHeads(config, next_sentence=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Logits [b, s, v]; labels [b, s] are -100 where no token is to be predicted."""
        output = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.cls.predictions(output.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return MaskedLMOutput(loss, logits, output.hidden_states, output.attentions)


@dataclass
class DslmBertForPreTrainingOutput(ModelOutput):
    """Loss, logits [b, s, v] of the masked LM and [b, 2] of the next sentence (1: a random one)."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class DslmBertForPreTraining(DslmBertWithPredictions):
    """BERT with the masked-LM and the next-sentence head."""

    accepts_loss_kwargs = False

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__(config)
        self.bert = DslmBertModel(config)
        self.cls = DslmBertHeads(config, next_sentence=True)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **kwargs: Any,
    ) -> DslmBertForPreTrainingOutput:
        """Logits of both heads; the loss is the sum of those whose labels, [b, s] and [b], are given."""
        output = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits, next_sentence = self.cls(output.last_hidden_state, output.pooler_output)
        losses = [
            F.cross_entropy(scores.flatten(0, -2).float(), targets.flatten())
            for scores, targets in ((logits, labels), (next_sentence, next_sentence_label))
            if targets is not None
        ]
        loss = torch.stack(losses).sum() if losses else None
        return DslmBertForPreTrainingOutput(loss, logits, next_sentence, output.hidden_states, output.attentions)


class DslmBertWithClassifier(DslmBertPreTrainedModel):
    """What the classes share that score the pooled first token: dropout and a new linear."""

    accepts_loss_kwargs = False

    def __init__(self, config: DslmBertConfig, scores: int) -> None:
        super().__init__(config)
        self.bert = DslmBertModel(config)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)
        self.classifier = drawn(nn.Linear(config.hidden_size, scores), new_head_std(config))
        self.post_init()


class DslmBertForSequenceClassification(DslmBertWithClassifier):
    """BERT with a classification or regression head on the pooled first token."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__(config, config.num_labels or 2)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [b, labels]; the loss is that of config.problem_type, which transformers tells by the labels."""
        output = self.bert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(output.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(loss, logits, output.hidden_states, output.attentions)


class DslmBertForMultipleChoice(DslmBertWithClassifier):
    """BERT with a score for each choice, from its pooled first token."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__(config, 1)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Ids [b, choices, s] to logits [b, choices]; labels [b]."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        choices = next(one.size(1) for one in (input_ids, inputs_embeds) if one is not None)
        flat = (None if one is None else one.flatten(0, 1) for one in inputs)
        output = self.bert(*flat, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(output.pooler_output)).view(-1, choices)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return MultipleChoiceModelOutput(loss, logits, output.hidden_states, output.attentions)
