"""How a whole tensor and a rank's shard of it belong together, and what a parameter is called in every layout."""

import re
from typing import Any

import torch
from megatron.core import parallel_state
from torch import Tensor

WORD_EMBEDDINGS = "embedding.word_embeddings.weight"
"""Layout-free name of the vocabulary's table, and of the output weight where that is tied to it."""
_LAYER = re.compile(r"^(?P<block>.*\blayers)\.(?P<index>\d+)\.(?P<tail>.+)$")
_TRANSFORMER_ENGINE = {
    "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
    "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}
"""Norms that Transformer Engine holds in the linear after them, by the names they have beside it."""


def layout_free_name(chunk: Any, name: str) -> str:
    """The name of an unwrapped chunk's parameter in the whole model: layers from 1, tied weights under one name."""
    if name == "output_layer.weight" and chunk.share_embeddings_and_output_weights:
        # The last pipeline stage keeps a copy of the tied embedding of its own.
        return WORD_EMBEDDINGS
    match = _LAYER.match(name)
    if match is None:
        return name
    tail = match["tail"]
    for theirs, ours in _TRANSFORMER_ENGINE.items():
        tail = tail.replace(theirs, ours)
    return f"{match['block']}.{chunk.get_submodule(match['block'] + '.' + match['index']).layer_number}.{tail}"


def place_in_layer(name: str) -> tuple[int, str] | None:
    """(layer number, name within the layer) of a parameter's layout-free name; None outside the layers."""
    match = _LAYER.match(name)
    return None if match is None else (int(match["index"]), match["tail"])


def of_layer(name: str, number: int) -> str:
    """The layout-free name of the same parameter in layer `number`."""
    return _LAYER.sub(rf"\g<block>.{number}.\g<tail>", name)


def is_gated(chunk: Any, name: str) -> bool:
    """Whether a parameter belongs to a gated FFN's first linear: its first half is the gate, its second the up half."""
    return chunk.config.gated_linear_unit and ".mlp.linear_fc1." in name


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """Shape of the whole tensor of which a parameter is this rank's shard."""
    shape = list(parameter.shape)
    if _is_sharded(parameter):
        shape[parameter.partition_dim] *= parallel_state.get_tensor_model_parallel_world_size()
    return tuple(shape)


def own_shard(whole: Tensor, parameter: Any, *, gated: bool = False) -> Tensor:
    """This rank's part of the whole tensor of a parameter: all of it where it is not split.

    Args:
        whole: of `whole_shape(parameter)`.
        gated: from `is_gated`.
    """
    size = parallel_state.get_tensor_model_parallel_world_size()
    if size == 1 or not _is_sharded(parameter):
        return whole
    rank = parallel_state.get_tensor_model_parallel_rank()
    return take_shard(whole, parameter.partition_dim, rank, size, gated=gated)


def take_shard(whole: Tensor, dim: int, rank: int, size: int, *, gated: bool = False) -> Tensor:
    """The part of a whole tensor that tensor-parallel rank `rank` of `size` holds, split along `dim`.

    A gated FFN's first linear is split half by half, so that each rank has matching gate and up rows.
    """
    if gated:
        return torch.cat([half.chunk(size, dim)[rank] for half in whole.chunk(2, 0)])
    return whole.chunk(size, dim)[rank]


def _is_sharded(parameter: Any) -> bool:
    return getattr(parameter, "tensor_model_parallel", False)
