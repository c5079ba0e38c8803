"""Names of parameters in the whole model, and the rows that a rank holds of a whole tensor."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dslm_patches.mcore.shards import is_gated, layout_free_name, of_layer, place_in_layer, take_shard

NAMES = {
    "decoder.layers.1.mlp.linear_fc2.weight": "decoder.layers.8.mlp.linear_fc2.weight",
    "decoder.layers.1.mlp.linear_fc1.layer_norm_weight": "decoder.layers.8.pre_mlp_layernorm.weight",
    "decoder.layers.1.self_attention.linear_qkv.layer_norm_bias": "decoder.layers.8.input_layernorm.bias",
    "decoder.final_layernorm.weight": "decoder.final_layernorm.weight",
    "output_layer.bias": "output_layer.bias",
}


def chunk(*, tied: bool = True, gated: bool = True) -> Any:
    """The second of two virtual stages of a model, whose second layer is number 8."""
    layers = {"decoder.layers.1": SimpleNamespace(layer_number=8)}
    return SimpleNamespace(
        share_embeddings_and_output_weights=tied,
        get_submodule=layers.__getitem__,
        config=SimpleNamespace(gated_linear_unit=gated),
    )


@pytest.mark.parametrize(("name", "whole"), NAMES.items())
def test_a_name_is_the_whole_models_and_the_local_layers(name: str, whole: str) -> None:
    assert layout_free_name(chunk(), name) == whole


def test_a_tied_output_weight_goes_by_the_embeddings_name() -> None:
    assert layout_free_name(chunk(), "output_layer.weight") == "embedding.word_embeddings.weight"
    assert layout_free_name(chunk(tied=False), "output_layer.weight") == "output_layer.weight"


def test_the_place_in_a_name() -> None:
    assert place_in_layer("encoder.layers.12.mlp.linear_fc1.weight") == (12, "mlp.linear_fc1.weight")
    assert place_in_layer("encoder.final_layernorm.weight") is None
    assert of_layer("encoder.layers.1.mlp.linear_fc1.weight", 30) == "encoder.layers.30.mlp.linear_fc1.weight"


@pytest.mark.parametrize("tail", ["weight", "bias"])
def test_the_first_linear_of_a_gated_ffn_is_gated(tail: str) -> None:
    name = f"decoder.layers.1.mlp.linear_fc1.{tail}"
    assert is_gated(chunk(), name)
    assert not is_gated(chunk(gated=False), name)
    assert not is_gated(chunk(), name.replace("fc1", "fc2"))


def test_a_gated_shard_has_matching_rows_of_both_halves() -> None:
    whole = torch.arange(8)
    assert take_shard(whole, 0, 1, 2).tolist() == [4, 5, 6, 7]
    assert take_shard(whole, 0, 1, 2, gated=True).tolist() == [2, 3, 6, 7]
    assert take_shard(torch.arange(6).view(2, 3), 1, 2, 3).tolist() == [[2], [5]]
