"""The arguments of the model in a Hugging Face folder, and the configuration of such a folder for a checkpoint.

Read without torch, so that a wrong folder is refused at once.
"""

import os
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.hf_folder import read_config, stock_bert_fields
from megatron.dslm.config.setting import settings_of
from megatron.dslm.models.family import families, family
from megatron.dslm.models.shape import padded_size

_FIELDS = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_attention_heads": "num_attention_heads",
    "num_query_groups": "num_key_value_heads",
    "kv_channels": "head_dim",
    "seq_length": "seq_length",
    "max_position_embeddings": "max_position_embeddings",
    "position_embedding_type": "position_embedding_type",
    "rotary_percent": "rotary_percent",
    "rotary_base": "rotary_base",
    "activation": "hidden_act",
    "normalization": "normalization",
    "norm_epsilon": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "depth_scheme": "depth_scheme",
    "norm_placement": "norm_placement",
    "dslm_k": "dslm_k",
    "dslm_alpha": "dslm_alpha",
    "dslm_lambda_sq": "dslm_lambda_sq",
    "dslm_beta_sq": "dslm_beta_sq",
    "dslm_input_correlation": "dslm_input_correlation",
    "init_method_std": "init_method_std",
}
"""Megatron's argument -> the configuration's field, where the value is the same."""
_RECORDED = ("make_vocab_size_divisible_by", "iteration", "tokenizer_type", "tokenizer_sha256", "task")


def config_fields(saved: dict[str, Any]) -> dict[str, Any]:
    """The arguments of DslmBertConfig or DslmGPTConfig for a checkpoint's recorded arguments."""
    fields = {hf: saved[ours] for ours, hf in _FIELDS.items()}
    fields |= {
        "use_bias": not saved["disable_bias_linear"],
        "tie_word_embeddings": not saved["untie_embeddings_and_output_weights"],
        "vocab_size": padded_size(saved["vocab_size"], vocabulary_multiple(saved)),
        "tokenizer_vocab_size": saved["vocab_size"],
        "megatron": {name: saved.get(name) for name in _RECORDED},
    }
    return fields | family(saved["model"]).hf_fields(saved)


def vocabulary_multiple(saved: dict[str, Any]) -> int:
    """What pads the vocabulary of a checkpoint's recorded arguments on one rank as it was padded in its layout."""
    multiple = saved["make_vocab_size_divisible_by"]
    rows = padded_size(saved["vocab_size"], multiple, saved.get("tensor_model_parallel_size") or 1)
    return multiple if padded_size(saved["vocab_size"], multiple) == rows else rows


def hf_arguments(folder: str, flag: str = "--load") -> dict[str, Any]:
    """The model and depth-scheme arguments, by argparse's names, of the model in a Dslm or stock BERT folder.

    Raises:
        UserError: no such folder, or a model that Megatron's flags cannot describe; `flag` or the field is named.
    """
    config = read_config(folder, flag)
    fields = stock_bert_fields(config) if config["model_type"] == "bert" else config
    missing = [name for name in (*_FIELDS.values(), "use_bias") if name not in fields and not name.startswith("dslm_")]
    if missing:
        raise UserError(f"{flag}: {os.path.join(folder, 'config.json')} does not say {', '.join(missing)}")
    recorded = fields.get("megatron") or {}
    own = next((one for one in families() if one.hf_model_type == config["model_type"]), family("bert"))  # a stock BERT
    of_family = own.hf_arguments(fields, folder, flag)
    rows = fields["vocab_size"]
    tokens = min(fields.get("tokenizer_vocab_size") or rows, rows)
    multiple = recorded.get("make_vocab_size_divisible_by") or 1
    return {
        **{ours: fields.get(hf) for ours, hf in _FIELDS.items()},
        **{name: None for one in families() for section in one.model_settings for name in settings_of(section)},
        **of_family,
        "model": own.name,
        "disable_bias_linear": not fields["use_bias"],
        "untie_embeddings_and_output_weights": not fields.get("tie_word_embeddings", True),
        "vocab_size": tokens,
        # A table of another size, as after resize_token_embeddings, is its own multiple.
        "make_vocab_size_divisible_by": multiple if padded_size(tokens, multiple) == rows else rows,
        "tokenizer_type": recorded.get("tokenizer_type") or of_family["tokenizer_type"],
        "tokenizer_sha256": recorded.get("tokenizer_sha256"),
        "iteration": recorded.get("iteration") or 0,
        "task": None,
    }
