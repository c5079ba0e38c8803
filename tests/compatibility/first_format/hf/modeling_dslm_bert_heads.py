"""What stands on BERT's layers in pretraining: pooler, masked-LM head, next-sentence head; as megatron-core's."""

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_dslm import DslmBertConfig
from .modeling_dslm_attention import drawn
from .modeling_dslm_layers import norm


class DslmBertPooler(nn.Module):
    """tanh of a linear of the first token."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__()
        self.dense = drawn(nn.Linear(config.hidden_size, config.hidden_size), config.model_std("pooler"))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, s, h] to [b, h]."""
        return self.dense(hidden_states[:, 0]).tanh()


class DslmBertHeadTransform(nn.Module):
    """Linear, exact GELU and norm, as megatron-core's BertLMHead."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__()
        self.dense = drawn(nn.Linear(config.hidden_size, config.hidden_size), config.model_std("lm_head_transform"))
        self.layer_norm = norm(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, s, h] to [b, s, h]."""
        return self.layer_norm(F.gelu(self.dense(hidden_states)))


class DslmBertPredictions(nn.Module):
    """The masked-LM head: transform, head scale, then the output layer with a bias a token."""

    def __init__(self, config: DslmBertConfig) -> None:
        super().__init__()
        self.transform = DslmBertHeadTransform(config)
        self.head_scale = config.head_scale
        self.decoder = drawn(nn.Linear(config.hidden_size, config.vocab_size), config.model_std("output"))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, s, h] to logits [b, s, v]."""
        return self.decoder(self.transform(hidden_states) * self.head_scale)


class DslmBertHeads(nn.Module):
    """The heads of pretraining: masked LM, and next-sentence prediction where asked for."""

    def __init__(self, config: DslmBertConfig, *, next_sentence: bool) -> None:
        super().__init__()
        self.predictions = DslmBertPredictions(config)
        self.seq_relationship = (
            drawn(nn.Linear(config.hidden_size, 2), config.model_std("binary_head")) if next_sentence else None
        )

    def forward(self, hidden_states: Tensor, pooled: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """[b, s, h] and [b, h] to the logits [b, s, v] and [b, 2]."""
        next_sentence = None if self.seq_relationship is None else self.seq_relationship(pooled)
        return self.predictions(hidden_states), next_sentence
