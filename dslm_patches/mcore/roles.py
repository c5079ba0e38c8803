"""Which role each row of each parameter of a megatron-core model plays, and the parameter's layout-free name."""

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dslm_patches.schemes import WeightRole

_LAYER = re.compile(r"^(?P<block>.*\blayers)\.(?P<index>\d+)\.(?P<tail>.+)$")

_MODEL_ROLES = {
    "embedding.word_embeddings.weight": WeightRole.WORD_EMBEDDING,
    "embedding.position_embeddings.weight": WeightRole.POSITION_EMBEDDING,
    "embedding.tokentype_embeddings.weight": WeightRole.TOKENTYPE_EMBEDDING,
    "lm_head.dense.weight": WeightRole.LM_HEAD_TRANSFORM,
    "output_layer.weight": WeightRole.OUTPUT,
    "pooler.dense.weight": WeightRole.POOLER,
    "binary_head.weight": WeightRole.BINARY_HEAD,
    "classification_head.weight": WeightRole.BINARY_HEAD,
}
_LAYER_ROLES = {
    "self_attention.linear_proj.weight": WeightRole.ATTENTION_OUTPUT,
    "mlp.linear_fc1.weight": WeightRole.FFN_UP,
    "mlp.linear_fc2.weight": WeightRole.FFN_DOWN,
}


@dataclass(frozen=True)
class ParameterRole:
    """A weight's place in the whole model.

    Attributes:
        global_name: the same in every layout: global layer numbers from 1, tied weights under one name.
        layer_number: global, from 1; None outside the layers.
        rows: roles of consecutive output rows with their counts, a pattern repeated over the whole matrix.
        gated: the first half of the rows is the gate, the second the up projection, sharded half by half.
    """

    global_name: str
    layer_number: int | None
    rows: tuple[tuple[WeightRole, int], ...]
    gated: bool = False

    def at_layer(self, number: int) -> "ParameterRole":
        """The same weight of another layer."""
        name = self.global_name.replace(f".layers.{self.layer_number}.", f".layers.{number}.", 1)
        return replace(self, global_name=name, layer_number=number)


def parameter_role(model: nn.Module, name: str, out_features: int) -> ParameterRole | None:
    """The role of the 2-D weight `name` of an unwrapped model chunk; None if it has none that is known.

    Args:
        model: megatron-core model chunk.
        name: the parameter's name in it.
        out_features: rows of the whole (unsharded) weight.
    """
    match = _LAYER.match(name)
    if match is None:
        return _model_role(model, name, out_features)
    layer: Any = model.get_submodule(f"{match['block']}.{match['index']}")
    number, tail = int(layer.layer_number), match["tail"]
    rows = _layer_rows(layer.config, tail, out_features)
    if rows is None:
        return None
    gated = tail == "mlp.linear_fc1.weight" and layer.config.gated_linear_unit
    return ParameterRole(f"{match['block']}.{number}.{tail}", number, rows, gated)


def _model_role(model: Any, name: str, out_features: int) -> ParameterRole | None:
    if name == "output_layer.weight" and model.share_embeddings_and_output_weights:
        # The last pipeline stage keeps its own copy of the tied embedding: it must be drawn alike.
        name = "embedding.word_embeddings.weight"
    role = _MODEL_ROLES.get(name)
    return None if role is None else ParameterRole(name, None, ((role, out_features),))


def _layer_rows(config: Any, tail: str, out_features: int) -> tuple[tuple[WeightRole, int], ...] | None:
    head = config.kv_channels
    if tail == "self_attention.linear_qkv.weight":
        # A query group holds its query heads, then its key, then its value.
        queries = config.num_attention_heads // config.num_query_groups
        return (WeightRole.QUERY, queries * head), (WeightRole.KEY, head), (WeightRole.VALUE, head)
    role = _LAYER_ROLES.get(tail)
    return None if role is None else ((role, out_features),)
