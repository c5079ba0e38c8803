"""Which models and layer specs a depth scheme can be put on. All others are refused by name: a part of them that does
not follow the scheme would be found in no output."""

from collections.abc import Iterator
from typing import Any

from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import nn

from dslm_patches.errors import UserError
from dslm_patches.mcore.post_ln import PostLNTransformerLayer
from dslm_patches.mcore.residual import PLAIN_ADDS, RESIDUAL_ADDS, plain_add

LAYER_CLASSES = (TransformerLayer, PostLNTransformerLayer)
"""Subclasses of these may add what they compute in ways of their own."""

_REFUSED_CONFIG = {
    "num_moe_experts": "mixture of experts",
    "mtp_num_layers": "multi-token prediction",
    "multi_latent_attention": "multi-latent attention",
    "attention_output_gate": "gated attention outputs",
    "heterogeneous_block_specs": "heterogeneous layers",
    "is_hybrid_model": "hybrid layers",
    "inference_fuse_tp_communication": "a residual add inside the row-parallel linear",
    "use_mup": "muP, which scales residuals and logits itself",
}
"""Settings of TransformerConfig; not all versions of megatron-core have all of them."""


def transformer_layers(model: Any) -> list[Any]:
    """The layers of a BertModel's or GPTModel's chunk, as many as this pipeline stage has."""
    return list((model.encoder if isinstance(model, BertModel) else model.decoder).layers)


def refuse_unknown_model(model: nn.Module) -> None:
    """Raises UserError that names what of a model would not follow a depth scheme.

    Covered are megatron-core's BertModel and GPTModel, and subclasses of them, with dense layers of self-attention and
    an MLP, Pre-LN or `PostLNTransformerLayer`.
    """
    for feature in _unknown_in_model(model):
        raise UserError(
            f"no depth scheme can be put on {feature}: it covers unwrapped BertModel and GPTModel of megatron-core "
            "with dense layers of self-attention and MLP"
        )


def refuse_unknown_spec(spec: Any) -> None:
    """Raises UserError that names what of a layer spec is not covered, as far as a spec shows it."""
    for feature in _unknown_in_spec(spec):
        raise UserError(
            f"the LayerNorms of {feature} cannot be placed: give the ModuleSpec of one dense TransformerLayer of "
            "self-attention and MLP"
        )


def _unknown_in_model(model: Any) -> Iterator[str]:
    if not isinstance(model, (BertModel, GPTModel)):
        yield f"a {type(model).__name__}"
        return
    for name, feature in _REFUSED_CONFIG.items():
        if getattr(model.config, name, None):
            yield f"{feature} (TransformerConfig.{name})"
    if getattr(model, "mtp_process", False):
        yield "multi-token prediction (mtp_block_spec)"
    for layer in transformer_layers(model):
        yield from _unknown_in_layer(layer, causal=not isinstance(model, BertModel))


def _unknown_in_layer(layer: Any, *, causal: bool) -> Iterator[str]:
    if type(layer) not in LAYER_CLASSES:
        yield f"layers of class {type(layer).__name__}"
        return
    if not isinstance(layer.cross_attention, IdentityOp):
        yield "layers with cross-attention"
    if not isinstance(layer.self_attention, SelfAttention):
        yield f"attention of class {type(layer.self_attention).__name__}"
    elif ("causal" in layer.self_attention.attn_mask_type.name) != causal:
        mask = layer.self_attention.attn_mask_type.name
        yield f"a {'GPTModel' if causal else 'BertModel'} whose attention has the mask {mask!r}"
    if not isinstance(layer.mlp, MLP):
        yield f"an MLP of class {type(layer.mlp).__name__}"
    for name in RESIDUAL_ADDS:
        add = plain_add(getattr(layer, name))
        if add not in PLAIN_ADDS:
            yield f"a residual add other than megatron-core's ({name}: {getattr(add, '__qualname__', add)})"


def _unknown_in_spec(spec: Any) -> Iterator[str]:
    if not isinstance(spec, ModuleSpec):
        yield f"a {type(spec).__name__}"
        return
    if spec.module not in LAYER_CLASSES:
        yield f"layers of class {getattr(spec.module, '__name__', spec.module)}"
        return
    layer = spec.submodules
    if layer.cross_attention is not IdentityOp:
        yield "layers with cross-attention"
    for part, known in (("self_attention", SelfAttention), ("mlp", MLP)):
        of_part = getattr(layer, part)
        # Newer versions of megatron-core may give a function: what it builds is seen on the model.
        built = of_part.module if isinstance(of_part, ModuleSpec) else of_part
        if isinstance(built, type) and not issubclass(built, known):
            yield f"layers whose {part} is of class {built.__name__}"
