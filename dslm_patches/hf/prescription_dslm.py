"""What a depth scheme prescribes for a model, as plain data for its config.json.

Loaded as remote code too: it needs `dslm_patches.schemes` only to compute a prescription that is not there yet.
"""

from typing import Any

ACTIVATIONS = {
    "gelu": ("gelu", False),
    "relu": ("relu", False),
    "silu": ("silu", False),
    "geglu": ("gelu", True),
    "swiglu": ("silu", True),
}
"""Function, by its name in torch.nn.functional, and gatedness: `theory.ffn.FFN_ACTIVATIONS`, for where that is not."""
_OPTIONS = {
    "norm_placement": "norm_placement",
    "init_method_std": "init_method_std",
    "k": "dslm_k",
    "alpha": "dslm_alpha",
    "lambda_sq": "dslm_lambda_sq",
    "beta_sq": "dslm_beta_sq",
}
"""A scheme's options, and the arguments of the configuration that set them."""
LAYER_ROLES = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


def of_layer(value: float | list[float], layer: int) -> float:
    """A value that is one number for all layers, or a list with one for each, at layer `layer`, from 0."""
    return value[layer] if isinstance(value, list) else value


def _compact(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values


def compute_prescription(config: Any) -> dict[str, Any] | None:
    """The prescription of the configuration's scheme as plain data; None where `dslm_patches` is not installed."""
    try:
        from dslm_patches.schemes import ModelShape, OptionError, SchemeOptions, WeightRole, build_scheme
    except ImportError:
        return None
    given = {option: getattr(config, name) for option, name in _OPTIONS.items()}
    options = SchemeOptions(**{option: value for option, value in given.items() if value is not None})
    shape = ModelShape.of(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        head_size=config.head_dim,
        seq_length=config.seq_length,
        causal=config.causal,
        activation=ACTIVATIONS[config.hidden_act],
        hidden_dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        learned_positions=config.position_embedding_type == "learned_absolute",
        segments=config.type_vocab_size > 0,
        tied_output=config.tie_word_embeddings,
        vocab_size=config.vocab_size,
        input_correlation=config.dslm_input_correlation,
    )
    try:
        scheme = build_scheme(config.depth_scheme, shape, options)
    except ValueError as error:
        message = error.worded(_OPTIONS.__getitem__) if isinstance(error, OptionError) else error
        raise ValueError(f"depth_scheme {config.depth_scheme!r}: {message}") from None
    roles = WeightRole.__members__
    return {
        "scheme": scheme.name,
        "norm_placement": scheme.norm_placement,
        "num_hidden_layers": len(scheme.layers),
        "head_scale": scheme.head_scale,
        "skip_scale": _compact([layer.skip_scale for layer in scheme.layers]),
        "branch_scale": _compact([layer.branch_scale for layer in scheme.layers]),
        "layer_std": {
            name: _compact([layer.std[roles[name.upper()]] for layer in scheme.layers]) for name in LAYER_ROLES
        },
        "model_std": {name: scheme.std(roles[name.upper()]) for name in config.model_roles},
    }
