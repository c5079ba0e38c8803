"""Configurations: what is written comes back, and what is wrong is named."""

from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from transformers import AutoConfig

from dslm_patches.hf import DslmBertConfig, DslmGPTConfig, DslmGPTForCausalLM
from dslm_patches.hf.prescription_dslm import ACTIVATIONS
from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from dslm_patches.torch_activations import TORCH_ACTIVATIONS
from tests.hf.small import SMALL


@pytest.mark.parametrize("config_class", [DslmBertConfig, DslmGPTConfig])
def test_a_configuration_comes_back_with_its_prescription(config_class: Any, tmp_path: Path) -> None:
    config = config_class(
        **SMALL, dslm_k=1.0, dslm_input_correlation=0.3, seq_length=20, id2label={0: "a", 1: "b", 2: "c"}
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is config_class
    assert {**config.to_dict(), "_name_or_path": ""} == {**loaded.to_dict(), "_name_or_path": ""}
    # What is there is used as it is: fine-tuning with other dropout changes no scale of a trained model.
    again = config_class.from_pretrained(tmp_path, hidden_dropout_prob=0.0)
    assert again.prescription == config.prescription
    assert again.prescription != config_class(**SMALL, hidden_dropout_prob=0.0).prescription
    assert isinstance(config.prescription["layer_std"]["query"], float)
    assert len(config.prescription["layer_std"]["value"]) == SMALL["num_hidden_layers"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth_scheme": "magic"}, "depth_scheme 'magic': unknown depth scheme"),
        ({"num_attention_heads": 5}, "hidden_size 32 must be divisible by num_attention_heads 5"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 must be divisible by num_key_value_heads 3"),
        ({"hidden_act": "tanh"}, "hidden_act must be one of"),
        ({"norm_placement": "middle"}, "norm_placement must be one of pre, post"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be positive"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must lie in"),
        ({"num_hidden_layers": 2}, "dslm_k 2 with dslm_alpha 1 over 2 layers"),
        ({"dslm_k": 1.0, "depth_scheme": "xavier"}, "dslm_k goes with depth_scheme 'dslm'"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DslmBertConfig(**{**SMALL, **wrong})


def test_a_prescription_of_another_model_is_refused(tmp_path: Path) -> None:
    DslmGPTConfig(**SMALL).save_pretrained(tmp_path)
    deeper = DslmGPTConfig.from_pretrained(tmp_path, num_hidden_layers=5)
    with pytest.raises(ValueError, match="num_hidden_layers 5 is not the prescription's, 4"):
        DslmGPTForCausalLM(deeper)


def test_activations_are_the_trainers() -> None:
    assert ACTIVATIONS == FFN_ACTIVATIONS, "the copy that goes with exported weights"
    for name, _ in ACTIVATIONS.values():
        assert getattr(F, name) is TORCH_ACTIVATIONS[name]
