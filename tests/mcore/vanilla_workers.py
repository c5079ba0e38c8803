"""Plain megatron-core beside ours, on one rank or two."""

import torch
from megatron.core.models.bert import bert_layer_specs
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.enums import AttnBackend

from dslm_patches.mcore import apply_scheme, layer_spec

VOCABULARY, LENGTH = 64, 16


def build(model: str, spec: object) -> torch.nn.Module:
    """A small model from a layer spec, dropout off."""
    config = TransformerConfig(
        num_layers=3,
        hidden_size=32,
        num_attention_heads=4,
        hidden_dropout=0.1,
        attention_dropout=0.0,
        attention_backend=AttnBackend.local,
        use_cpu_initialization=True,
    )
    common = {"vocab_size": VOCABULARY, "max_sequence_length": LENGTH, "share_embeddings_and_output_weights": True}
    if model == "bert":
        return BertModel(config=config, num_tokentypes=2, transformer_layer_spec=spec, **common)
    return GPTModel(config=config, transformer_layer_spec=spec, **common)


def loss_and_gradients(model: torch.nn.Module, kind: str) -> dict[str, torch.Tensor]:
    """Outputs and every gradient on fixed tokens, dropout seeded alike."""
    torch.manual_seed(7)
    tokens, labels = torch.randint(VOCABULARY, (2, 2, LENGTH)).unbind(0)
    if kind == "bert":
        losses, binary = model(tokens, torch.ones(2, LENGTH), tokentype_ids=tokens % 2, lm_labels=labels)
        result = {"losses": losses, "binary": binary}
        total = losses.sum() + binary.sum()
    else:
        losses = model(tokens, torch.arange(LENGTH).expand(2, -1), None, labels=labels)
        result, total = {"losses": losses}, losses.sum()
    total.backward()
    return {name: value.detach() for name, value in result.items()} | {
        name: parameter.grad for name, parameter in model.named_parameters()
    }


def compare_with_plain_megatron(model: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(ours under the megatron scheme, plain megatron-core with the same weights)."""
    plain_spec = (
        bert_layer_specs.bert_layer_local_spec if model == "bert" else gpt_layer_specs.get_gpt_layer_local_spec()
    )
    plain, ours = build(model, plain_spec), build(model, layer_spec(model, "local", "pre"))
    apply_scheme(ours, "megatron", seed=3)
    plain.load_state_dict(ours.state_dict())
    return loss_and_gradients(ours, model), loss_and_gradients(plain, model)
