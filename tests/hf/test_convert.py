"""Names and layouts of tensors between Megatron and Hugging Face."""

from typing import Any

import pytest
import torch

from dslm_patches.hf import DslmGPTForCausalLM
from dslm_patches.hf.convert import to_hf, to_megatron
from tests.hf.small import MODELS, MODERN, small


@pytest.mark.parametrize("settings", [{}, {**MODERN, "tie_word_embeddings": False}], ids=["plain", "modern"])
@pytest.mark.parametrize("model_class", MODELS)
def test_names_and_layouts_go_both_ways(model_class: Any, settings: dict[str, Any]) -> None:
    model = small(model_class, **settings)
    state = {name: one for name, one in model.state_dict().items() if name not in model.all_tied_weights_keys}
    megatron = to_megatron(state, model.config)
    back = to_hf(megatron, model.config)
    prefix = "" if "For" in model_class.__name__ else f"{model_class.base_model_prefix}."
    assert back.keys() == {prefix + name for name in state}
    assert all(torch.equal(one, back[prefix + name]) for name, one in state.items())
    block = "decoder" if model.config.causal else "encoder"
    # Group by group: its query heads, its key, its value.
    heads = model.config.num_attention_heads // model.config.num_key_value_heads
    first = megatron[f"{block}.layers.2.self_attention.linear_qkv.weight"][: (heads + 2) * 8]
    attention = model.base_model.layers[1].self_attn
    assert torch.equal(first[: heads * 8], attention.q_proj.weight[: heads * 8])
    assert torch.equal(first[heads * 8 : heads * 8 + 8], attention.k_proj.weight[:8])
    assert torch.equal(first[heads * 8 + 8 :], attention.v_proj.weight[:8])


def test_tensors_that_do_not_belong_are_named() -> None:
    model = small(DslmGPTForCausalLM)
    megatron = to_megatron(model.state_dict(), model.config)
    with pytest.raises(ValueError, match=r"decoder\.mystery: a tensor that the model"):
        to_hf({**megatron, "decoder.mystery": torch.ones(1)}, model.config)
    name = "decoder.layers.3.mlp.linear_fc2.bias"
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + " is missing"):
        to_hf({key: one for key, one in megatron.items() if key != name}, model.config)
    with pytest.raises(ValueError, match=r"model\.layers\.0\.self_attn\.k_proj\.weight is missing"):
        to_megatron(
            {k: v for k, v in model.state_dict().items() if "layers.0.self_attn.k_proj.weight" not in k}, model.config
        )
    qkv = "decoder.layers.1.self_attention.linear_qkv.weight"
    with pytest.raises(ValueError, match=r"linear_qkv\.weight has 95 rows where the configuration says 96"):
        to_hf({**megatron, qkv: megatron[qkv][:-1]}, model.config)
