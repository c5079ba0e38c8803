"""Models under a scheme, looked at from inside a rank."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.enums import AttnBackend

from dslm_patches.mcore import apply_scheme, layer_spec, model_shape
from dslm_patches.schemes import SchemeOptions

HEADS, HEAD, LAYERS, VOCABULARY, LENGTH = 8, 16, 4, 512, 32


def build(model: str = "gpt", placement: str = "pre", **overrides: Any) -> torch.nn.Module:
    """A model 128 wide with 2 query groups of 4 heads unless overridden."""
    settings = {
        "num_layers": LAYERS,
        "hidden_size": HEADS * HEAD,
        "num_attention_heads": HEADS,
        "num_query_groups": 2,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "attention_backend": AttnBackend.local,
        "use_cpu_initialization": True,
    }
    config = TransformerConfig(**{**settings, **overrides})
    spec = layer_spec(model, "local", placement)  # type: ignore[arg-type]
    common = {"vocab_size": VOCABULARY, "max_sequence_length": LENGTH, "share_embeddings_and_output_weights": True}
    if model == "bert":
        return BertModel(config=config, num_tokentypes=2, transformer_layer_spec=spec, **common)
    return GPTModel(config=config, transformer_layer_spec=spec, **common)


def role_statistics(scheme: str) -> dict[str, tuple[float, float, int]]:
    """(measured std, prescribed std, count) of the parts of each fused and plain weight of a gated GQA model."""
    model = build(activation_func=F.silu, gated_linear_unit=True)
    prescription = apply_scheme(model, scheme, seed=5)
    found = {}
    for layer in model.decoder.layers:
        std = {role.name: value for role, value in prescription.layers[layer.layer_number - 1].std.items()}
        groups = layer.self_attention.linear_qkv.weight.view(2, -1, HEADS * HEAD)
        query, key, value = groups.split([4 * HEAD, HEAD, HEAD], dim=1)
        parts = {
            "QUERY": query,
            "KEY": key,
            "VALUE": value,
            "ATTENTION_OUTPUT": layer.self_attention.linear_proj.weight,
            "FFN_UP": layer.mlp.linear_fc1.weight,
            "FFN_DOWN": layer.mlp.linear_fc2.weight,
        }
        for name, part in parts.items():
            found[f"{layer.layer_number}.{name}"] = (part.std().item(), std[name], part.numel())
    return found


def whole_weights(tensor_parallel: int, gated: bool) -> dict[str, torch.Tensor]:
    """This rank's parameters after initialisation, for putting the shards together again."""
    extra = {"activation_func": F.silu, "gated_linear_unit": True} if gated else {}
    model = build(tensor_model_parallel_size=tensor_parallel, **extra)
    apply_scheme(model, "dslm", seed=9)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def unknown_parameter() -> str:
    """The error for a weight without a rule."""
    model = build()
    model.decoder.layers[0].mystery = torch.nn.Linear(4, 4)
    try:
        apply_scheme(model, "dslm", seed=1)
    except ValueError as error:
        return str(error)
    return "no error"


def placement_mismatch() -> str:
    """The error for a Post-LN scheme on a Pre-LN model."""
    try:
        apply_scheme(build(), "dslm", seed=1, options=SchemeOptions(norm_placement="post"))
    except ValueError as error:
        return str(error)
    return "no error"


def post_ln_against_reference(model: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(our Post-LN block's output, LN(skip x + branch f(x)) written out by hand) on random input [s, b, h]."""
    net = build(model, "post", hidden_dropout=0.0, attention_dropout=0.0)
    scheme = apply_scheme(net, "dslm", seed=2, options=SchemeOptions(norm_placement="post"))
    for parameter in net.parameters():  # norms that do something
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    block = net.encoder if model == "bert" else net.decoder
    torch.manual_seed(0)
    x = torch.randn(LENGTH, 2, HEADS * HEAD)
    mask = torch.zeros(2, 1, LENGTH, LENGTH, dtype=torch.bool) if model == "bert" else None
    ours = block(hidden_states=x, attention_mask=mask)
    layers = list(block.layers)
    h = layers[0].input_layernorm(x)
    for index, layer in enumerate(layers):
        skip, branch = scheme.layers[index].skip_scale, scheme.layers[index].branch_scale
        attention, bias = layer.self_attention(h, attention_mask=mask)
        h = layer.pre_mlp_layernorm(skip * h + branch * (attention + bias))
        ffn, bias = layer.mlp(h)
        after = layers[index + 1].input_layernorm if index + 1 < len(layers) else block.final_layernorm
        h = after(skip * h + branch * (ffn + bias))
    return ours.detach(), h.detach()


def initial_logits_variance(model: str) -> float:
    """Variance of the tied logits of a DeepScaleLM model at initialisation, on random tokens."""
    net = build(model).eval()
    apply_scheme(net, "dslm", seed=4)
    torch.manual_seed(1)
    tokens = torch.randint(VOCABULARY, (16, LENGTH))
    if model == "bert":
        logits = net(tokens, torch.ones(16, LENGTH), tokentype_ids=tokens * 0)[0]
    else:
        logits = net(tokens, torch.arange(LENGTH).expand(16, -1), None)
    return logits.var().item()


def shapes() -> tuple[Any, Any]:
    """Shapes read off a BERT and a GPT."""
    return model_shape(build("bert")), model_shape(build("gpt"))
