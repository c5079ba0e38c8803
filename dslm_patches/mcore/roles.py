"""Which role each row of each parameter of a megatron-core model plays."""

from dataclasses import dataclass, replace
from typing import Any

from dslm_patches.mcore.shards import WORD_EMBEDDINGS, layout_free_name, of_layer, place_in_layer
from dslm_patches.schemes import WeightRole

_MODEL_ROLES = {
    WORD_EMBEDDINGS: WeightRole.WORD_EMBEDDING,
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
        global_name: the same in every layout (`shards.layout_free_name`).
        layer_number: global, from 1; None outside the layers.
        rows: roles of consecutive output rows with their counts, a pattern repeated over the whole matrix.
    """

    global_name: str
    layer_number: int | None
    rows: tuple[tuple[WeightRole, int], ...]

    def at_layer(self, number: int) -> "ParameterRole":
        """The same weight of another layer."""
        return replace(self, global_name=of_layer(self.global_name, number), layer_number=number)


def parameter_role(model: Any, name: str, out_features: int) -> ParameterRole | None:
    """The role of the 2-D weight `name` of an unwrapped model chunk; None if it has none that is known.

    Args:
        model: megatron-core model chunk.
        name: the parameter's name in it.
        out_features: rows of the whole (unsharded) weight.
    """
    global_name = layout_free_name(model, name)
    place = place_in_layer(global_name)
    if place is None:
        role = _MODEL_ROLES.get(global_name)
        return None if role is None else ParameterRole(global_name, None, ((role, out_features),))
    number, tail = place
    rows = _layer_rows(model.config, tail, out_features)
    return None if rows is None else ParameterRole(global_name, number, rows)


def _layer_rows(config: Any, tail: str, out_features: int) -> tuple[tuple[WeightRole, int], ...] | None:
    head = config.kv_channels
    if tail == "self_attention.linear_qkv.weight":
        # A query group holds its query heads, then its key, then its value.
        queries = config.num_attention_heads // config.num_query_groups
        return (WeightRole.QUERY, queries * head), (WeightRole.KEY, head), (WeightRole.VALUE, head)
    role = _LAYER_ROLES.get(tail)
    return None if role is None else ((role, out_features),)
