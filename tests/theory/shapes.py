"""Shapes of models for tests of the theory."""

from typing import Any

from dslm_patches.theory.shape import ModelShape


def model_shape(*, hidden_size: int = 64, **changes: Any) -> ModelShape:
    """An encoder with ReLU FFNs of ratio 4, four heads, hidden dropout 0.1 and a token correlation of 0.2."""
    settings: dict[str, Any] = {
        "num_layers": 2,
        "hidden_size": hidden_size,
        "ffn_hidden_size": 4 * hidden_size,
        "attention_size": hidden_size,
        "head_size": hidden_size // 4,
        "seq_length": 32,
        "causal": False,
        "activation": "relu",
        "gated": False,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.0,
        "embedding_tables": 3,
        "tied_output": True,
        "input_correlation": 0.2,
    }
    return ModelShape(**{**settings, **changes})
