"""Reads the shape a scheme needs off a megatron-core model, the same on every pipeline stage."""

from typing import Any

from megatron.core.models.bert.bert_model import BertModel

from dslm_patches.mcore.covered import refuse_unknown_model
from dslm_patches.schemes import ModelShape
from dslm_patches.torch_activations import TORCH_ACTIVATIONS

_ACTIVATION_NAMES = {function: name for name, function in TORCH_ACTIVATIONS.items()}


def model_shape(model: Any, *, seq_length: int | None = None, input_correlation: float | None = None) -> ModelShape:
    """The shape of a megatron-core BertModel or GPTModel (unwrapped, any pipeline stage of it).

    Args:
        model: the model; its TransformerConfig and constructor arguments are read.
        seq_length: tokens a sequence, where the model is built for longer ones.
        input_correlation: token correlation of the summed embeddings; computed from Zipf's law when None.

    Raises:
        UserError: a model of another kind, by its name.
    """
    refuse_unknown_model(model)
    config = model.config
    is_bert = isinstance(model, BertModel)
    function = config.activation_func
    return ModelShape.of(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.ffn_hidden_size,
        num_heads=config.num_attention_heads,
        head_size=config.kv_channels,
        seq_length=seq_length or model.max_sequence_length,
        causal=not is_bert,
        activation=(
            _ACTIVATION_NAMES.get(function, getattr(function, "__name__", str(function))),
            config.gated_linear_unit,
        ),
        hidden_dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
        learned_positions=model.position_embedding_type == "learned_absolute",
        segments=is_bert and model.add_binary_head,
        tied_output=model.share_embeddings_and_output_weights,
        vocab_size=model.vocab_size,
        input_correlation=input_correlation,
    )
