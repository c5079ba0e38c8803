"""What a depth scheme prescribes for a model, as plain data for its config.json.

Loaded as remote code too: it needs `dslm_patches.schemes` only to compute a prescription that is not there yet.
"""

import re
from typing import Any

GATED = {"geglu": "gelu", "swiglu": "silu"}
"""Gated activations, and the function of their gate."""
LAYER_ROLES = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


def of_layer(value: float | list[float], layer: int) -> float:
    """A value that is one number for all layers, or a list with one for each, at layer `layer`, from 0."""
    return value[layer] if isinstance(value, list) else value


def _compact(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values


def compute_prescription(config: Any) -> dict[str, Any] | None:
    """The prescription of the configuration's scheme as plain data; None where `dslm_patches` is not installed."""
    try:
        from dslm_patches.schemes import ModelShape, SchemeOptions, WeightRole, build_scheme
        from dslm_patches.theory.embeddings import input_correlation
    except ImportError:
        return None
    learned, segments = config.position_embedding_type == "learned_absolute", config.type_vocab_size > 0
    correlation = config.dslm_input_correlation
    if correlation is None:
        correlation = input_correlation(config.vocab_size, learned_positions=learned, segments=segments)
    given = {"k": config.dslm_k, "alpha": config.dslm_alpha, "init_method_std": config.init_method_std}
    options = SchemeOptions(
        norm_placement=config.norm_placement,
        lambda_sq=config.dslm_lambda_sq,
        beta_sq=config.dslm_beta_sq,
        **{name: value for name, value in given.items() if value is not None},
    )
    shape = ModelShape(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        attention_size=config.num_attention_heads * config.head_dim,
        head_size=config.head_dim,
        seq_length=config.seq_length,
        causal=config.causal,
        activation=GATED.get(config.hidden_act, config.hidden_act),
        gated=config.hidden_act in GATED,
        hidden_dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        embedding_tables=1 + int(learned) + int(segments),
        tied_output=config.tie_word_embeddings,
        input_correlation=correlation,
    )
    try:
        scheme = build_scheme(config.depth_scheme, shape, options)
    except ValueError as error:
        # The message speaks of the trainer's flags: here they are arguments.
        told = re.sub(r"--([a-z-]+)", lambda flag: flag[1].replace("-", "_"), str(error))
        raise ValueError(f"depth_scheme {config.depth_scheme!r}: {told}") from None
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
