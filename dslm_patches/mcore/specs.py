"""Layer specs: megatron-core's own for Pre-LN, and any of them turned into Post-LN."""

import copy
from typing import Any

from megatron.core.models.bert import bert_layer_specs
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer

from dslm_patches.errors import UserError
from dslm_patches.mcore.covered import refuse_unknown_spec
from dslm_patches.mcore.post_ln import PostLNTransformerLayer
from dslm_patches.schemes import NormPlacement

_NORM_CHECKPOINT_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}
"""megatron-core's own map: local and Transformer Engine layers, Pre-LN and Post-LN, share checkpoint names."""


def layer_spec(model: str, transformer_impl: str, norm_placement: NormPlacement) -> ModuleSpec:
    """The layer spec of a "bert" or "gpt", for "local" or "transformer_engine", Pre-LN or Post-LN.

    Raises:
        ImportError: Transformer Engine is asked for and not installed.
    """
    if transformer_impl == "local":
        spec = bert_layer_specs.bert_layer_local_spec if model == "bert" else gpt_layer_specs.get_gpt_layer_local_spec()
    elif model == "bert":
        spec = bert_layer_specs.get_bert_layer_with_transformer_engine_spec()
    else:
        spec = gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec()
    return with_norm_placement(spec, norm_placement)


def with_norm_placement(spec: ModuleSpec, norm_placement: NormPlacement) -> ModuleSpec:
    """A copy of a megatron-core layer spec with its LayerNorms placed "pre" (as megatron-core has them) or "post".

    Transformer Engine's spec fuses each LayerNorm into the linear after it, where its output cannot be the
    skip; Post-LN takes the two apart.

    Raises:
        UserError: a placement that is neither, or a spec of other layers than dense ones of self-attention and MLP.
    """
    if norm_placement not in ("pre", "post"):
        raise UserError(f"unknown norm placement {norm_placement!r}: known are pre, post")
    refuse_unknown_spec(spec)
    spec = copy.deepcopy(spec)
    if norm_placement == "pre":
        spec.module = TransformerLayer
        return spec
    layer = spec.submodules
    if layer.input_layernorm is IdentityOp:
        layer.input_layernorm = layer.pre_mlp_layernorm = _unfuse_norms(layer)
    layer.sharded_state_dict_keys_map = {**layer.sharded_state_dict_keys_map, **_NORM_CHECKPOINT_NAMES}
    spec.module = PostLNTransformerLayer
    return spec


def _unfuse_norms(layer: Any) -> type:
    """Plain linears in place of Transformer Engine's LayerNorm-linears; the norm to stand before them."""
    from megatron.core.extensions.transformer_engine import (
        TEColumnParallelLinear,
        TELayerNormColumnParallelLinear,
        TENorm,
    )

    attention, mlp = layer.self_attention.submodules, layer.mlp.submodules
    if (attention.linear_qkv, mlp.linear_fc1) != (TELayerNormColumnParallelLinear,) * 2:
        raise UserError("Post-LN needs a layer spec with its own LayerNorms or Transformer Engine's LayerNorm-linears")
    attention.linear_qkv = mlp.linear_fc1 = TEColumnParallelLinear
    return TENorm
