"""Between Hugging Face folders and Megatron: the flags of a folder's model, and its weights for any layout.

Nothing heavy is imported until weights are loaded, so that a wrong folder is refused at once.
"""

import os
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.hf_folder import read_config, stock_bert_fields
from megatron.dslm.arguments.shape import padded_size

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
    if saved["model"] == "bert":
        fields["type_vocab_size"] = 0 if saved["bert_no_binary_head"] else 2
    return fields


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
    is_bert = config["model_type"] != "dslm_gpt"
    if is_bert and fields["type_vocab_size"] not in (0, 2):
        raise UserError(
            f"{flag}: {folder} has type_vocab_size {fields['type_vocab_size']}: Megatron's BERT has 2 or none"
        )
    rows = fields["vocab_size"]
    tokens = min(fields.get("tokenizer_vocab_size") or rows, rows)
    multiple = recorded.get("make_vocab_size_divisible_by") or 1
    return {
        **{ours: fields.get(hf) for ours, hf in _FIELDS.items()},
        "model": "bert" if is_bert else "gpt",
        "disable_bias_linear": not fields["use_bias"],
        "untie_embeddings_and_output_weights": not fields.get("tie_word_embeddings", True),
        "bert_no_binary_head": fields["type_vocab_size"] == 0 if is_bert else None,
        "vocab_size": tokens,
        # A table of another size, as after resize_token_embeddings, is its own multiple.
        "make_vocab_size_divisible_by": multiple if padded_size(tokens, multiple) == rows else rows,
        "tokenizer_type": recorded.get("tokenizer_type") or _tokenizer_type(folder, is_bert),
        "tokenizer_sha256": recorded.get("tokenizer_sha256"),
        "iteration": recorded.get("iteration") or 0,
        "task": None,
    }


def _tokenizer_type(folder: str, is_bert: bool) -> str:
    if not is_bert:
        return "GPT2BPETokenizer"
    import json

    path = os.path.join(folder, "tokenizer_config.json")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            if json.load(file).get("do_lower_case") is False:
                return "BertWordPieceCase"
    return "BertWordPieceLowerCase"


def load_hf_weights(
    chunks: list[Any], folder: str, *, strict: bool = True, flag: str = "--load", leave: str | None = None
) -> list[str]:
    """Fills model chunks of any layout, on all ranks, from a Dslm or stock BERT folder; other parameters stay.

    Rows that only pad this model's vocabulary become 0.

    Args:
        strict: every parameter must be in the folder, and every tensor of the folder have its place.
        leave: parameters whose names begin so stay too.

    Returns:
        The layout-free names of the parameters, of all ranks, that the folder has nothing for: new heads.

    Raises:
        UserError: a tensor of another shape or, if strict, without its match, by its name. On all ranks alike.
    """
    import torch
    from megatron.core.utils import unwrap_model

    from dslm_patches.hf.convert import join
    from dslm_patches.hf.reader import FolderReader
    from dslm_patches.mcore.shards import is_gated, layout_free_name
    from megatron.dslm.ranks import from_all_ranks

    with FolderReader(folder, flag) as reader, torch.no_grad():
        places = {
            one.megatron: one
            for one in reader.correspondences(strict=strict)
            if leave is None or not one.megatron.startswith(leave)
        }
        seen: set[str] = set()
        problem: str | None = None
        for chunk in map(unwrap_model, chunks):
            for name, parameter in chunk.named_parameters():
                place = layout_free_name(chunk, name)
                seen.add(place)
                if place not in places:
                    continue
                try:
                    whole = join(places[place], reader.tensor, reader.config)
                    _fill(parameter, place, whole, reader.config, gated=is_gated(chunk, name))
                except ValueError as error:
                    problem = problem or str(error)
    everywhere = from_all_ranks((seen, problem))
    problem = next((one for _, one in everywhere if one), None)
    seen = set().union(*(names for names, _ in everywhere))
    if problem is None and strict and seen != set(places):
        name = sorted(seen ^ set(places))[0]
        problem = f"{name} is missing from the folder" if name in seen else f"the model has no place for {name}"
    if problem is not None:
        raise UserError(f"{flag} {folder}: {problem}")
    return sorted(seen - set(places))


def _fill(parameter: Any, name: str, whole: Any, config: Any, *, gated: bool) -> None:
    """Copies this rank's shard of a whole weight."""
    import torch.nn.functional as F

    from dslm_patches.mcore.shards import WORD_EMBEDDINGS, own_shard, whole_shape

    shape = whole_shape(parameter)
    of_vocabulary = name in (WORD_EMBEDDINGS, "output_layer.weight", "output_layer.bias")
    if of_vocabulary and shape[0] >= (config.tokenizer_vocab_size or config.vocab_size):
        whole = F.pad(whole, (0,) * (2 * whole.dim() - 1) + (max(0, shape[0] - whole.size(0)),))[: shape[0]]
    if whole.shape != shape:
        raise UserError(f"{name} is {list(whole.shape)} in the folder, and the model wants {list(shape)}")
    parameter.copy_(own_shard(whole, parameter, gated=gated))
