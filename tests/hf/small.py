"""The small models of these tests."""

from typing import Any

import torch

import dslm_patches.hf as hf

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "intermediate_size": 48,
}
MODERN: dict[str, Any] = {
    "position_embedding_type": "rope",
    "hidden_act": "swiglu",
    "num_key_value_heads": 2,
    "normalization": "RMSNorm",
    "use_bias": False,
}
MODELS = [getattr(hf, name) for name in hf.__all__ if not name.endswith("Config")]


def small(model_class: Any, **settings: Any) -> Any:
    """A model of SMALL with other settings, drawn from seed 0."""
    torch.manual_seed(0)
    return model_class(model_class.config_class(**{**SMALL, **settings}))
