"""What a Hugging Face folder says about its model and where its weights lie: JSON alone, without torch."""

import json
import os
from typing import Any

from dslm_patches.errors import UserError

_STOCK_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "classifier_dropout": None,
}
"""transformers' BertConfig, whose config.json may leave out what is so by default."""
_STOCK_LABELS = ("id2label", "label2id", "problem_type")
_STOCK_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


def read_config(folder: str, flag: str = "--load") -> dict[str, Any]:
    """The config.json of a folder of "dslm_bert", "dslm_gpt" or stock "bert".

    Raises:
        UserError: none there, or of another model; `flag` and the file are named.
    """
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: {path} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") not in ("dslm_bert", "dslm_gpt", "bert"):
        raise UserError(f"{flag}: {path} does not say model_type dslm_bert, dslm_gpt or bert")
    return config


def require_new(folder: str, flag: str = "--save") -> None:
    """Refuses a folder that is there and not empty, so that nothing is overwritten.

    Raises:
        UserError: it is; `flag` and the folder are named.
    """
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise UserError(f"{flag} {folder} is there already: remove it, or give another folder")


def stock_bert_fields(config: dict[str, Any]) -> dict[str, Any]:
    """A stock BERT's config.json as arguments of DslmBertConfig: Post-LN, Megatron's initialisation.

    Raises:
        UserError: a stock BERT with what BERT here does not have, by the field's name.
    """
    for name, only in _STOCK_ONLY.items():
        if config.get(name, only) != only:
            raise UserError(f"{name} {config[name]!r} of a stock BERT cannot be taken over: only {only!r} can")
    std = config.get("initializer_range", 0.02)
    fields = {name: config.get(name, default) for name, default in _STOCK_DEFAULTS.items()}
    if fields["hidden_size"] % fields["num_attention_heads"]:
        raise UserError(
            f"hidden_size {fields['hidden_size']} is not divisible by num_attention_heads "
            f"{fields['num_attention_heads']}"
        )
    return {
        **fields,
        **{name: config[name] for name in _STOCK_LABELS if name in config},
        "num_key_value_heads": fields["num_attention_heads"],
        "head_dim": fields["hidden_size"] // fields["num_attention_heads"],
        "hidden_act": "gelu",
        "normalization": "LayerNorm",
        "position_embedding_type": "learned_absolute",
        "rotary_percent": 1.0,
        "rotary_base": 10000,
        "use_bias": True,
        "seq_length": fields["max_position_embeddings"],
        "depth_scheme": "megatron",
        "norm_placement": "post",
        "init_method_std": None if std == 0.02 else std,
    }


def weight_files(folder: str, flag: str = "--load") -> list[str]:
    """The safetensors files of a folder, one or as its index lists them.

    Raises:
        UserError: none; pickled weights, which could run code, are refused.
    """
    single, index = (os.path.join(folder, name) for name in ("model.safetensors", "model.safetensors.index.json"))
    if os.path.isfile(single):
        return [single]
    if os.path.isfile(index):
        try:
            with open(index, encoding="utf-8") as file:
                names = sorted(set(json.load(file)["weight_map"].values()))
            if any(os.path.basename(name) != name or name in ("", ".", "..") for name in names):
                raise UserError(f"names files elsewhere: {names}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{flag}: {index} is not an index of safetensors: {error!r}") from None
        return [os.path.join(folder, name) for name in names]
    if os.path.isdir(folder) and any(name.endswith(".bin") for name in os.listdir(folder)):
        raise UserError(
            f"{flag}: {folder} holds pickled weights, which can run code: load it in transformers where you trust it "
            "and save_pretrained again, which writes model.safetensors"
        )
    raise UserError(f"{flag}: {folder} holds no model.safetensors")
