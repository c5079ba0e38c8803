"""A stock transformers BERT as a DslmBert: the same function under other names.

BERT's own Post-LN, LN(x + f(x)) with a LayerNorm on the embeddings, is the Post-LN of this project with the norms
counted on: the embeddings' LayerNorm is the first layer's input norm, a layer's output.LayerNorm the next one's, the
last the final norm. Dropout alone sits elsewhere: stock BERT drops the embeddings after their LayerNorm, here, as in
Megatron, they are dropped before it. So outputs are equal in eval mode, and fine-tuning with dropout draws other masks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from dslm_patches.hf_folder import stock_bert_fields

from .configuration_dslm import DslmBertConfig

_LINEARS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.o_proj": "attention.output.dense",
    "mlp.up_proj": "intermediate.dense",
    "mlp.down_proj": "output.dense",
}
_HEADS = {
    "bert.pooler.dense": "bert.pooler.dense",
    "cls.predictions.transform.dense": "cls.predictions.transform.dense",
    "cls.predictions.transform.layer_norm": "cls.predictions.transform.LayerNorm",
    "cls.seq_relationship": "cls.seq_relationship",
    "classifier": "classifier",
}
_REDUNDANT = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids", "cls.predictions.decoder.bias")
"""Counting buffers of older files, and the output bias under its second name."""


def stock_bert_config(config: Mapping[str, Any]) -> DslmBertConfig:
    """The configuration of a stock BERT's config.json.

    Raises:
        ValueError: a stock BERT with what BERT here does not have, by the field's name.
    """
    return DslmBertConfig(**stock_bert_fields(dict(config)))


def stock_bert_names(config: DslmBertConfig) -> dict[str, str]:
    """The stock name of every tensor a DslmBert of this configuration can have."""
    names = {f"bert.embeddings.{table}.weight": f"bert.embeddings.{table}.weight" for table in _tables(config)}
    norm = "bert.embeddings.LayerNorm"
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"bert.layers.{layer}", f"bert.encoder.layer.{layer}"
        names |= _both({f"{ours}.input_layernorm": norm})
        names |= _both({f"{ours}.pre_mlp_layernorm": f"{theirs}.attention.output.LayerNorm"})
        names |= _both({f"{ours}.{one}": f"{theirs}.{other}" for one, other in _LINEARS.items()})
        norm = f"{theirs}.output.LayerNorm"
    names |= _both({"bert.final_layernorm": norm, **_HEADS})
    names["cls.predictions.decoder.weight"] = "cls.predictions.decoder.weight"
    names["cls.predictions.decoder.bias"] = "cls.predictions.bias"
    return names


def from_stock_names(stock: Iterable[str], config: DslmBertConfig) -> dict[str, str]:
    """By the names of this project, the stock names among those that a checkpoint holds.

    Raises:
        ValueError: a tensor that no BERT of transformers' pretraining and classification classes has.
    """
    full = {_current(name): name for name in stock}
    known = {theirs: ours for ours, theirs in stock_bert_names(config).items()}
    for name in sorted(full):
        if name not in known and name not in _REDUNDANT:
            raise ValueError(
                f"{full[name]}: a tensor that stock BERT's pretraining and classification models do not have"
            )
    return {known[name]: given for name, given in full.items() if name in known}


def from_stock_bert(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], DslmBertConfig]:
    """A stock BERT's state dict and config.json as those of a DslmBert.

    Raises:
        ValueError: what cannot be taken over, by its name.
    """
    ours = stock_bert_config(config)
    return {name: state[given] for name, given in from_stock_names(state, ours).items()}, ours


def _current(name: str) -> str:
    """A stock name as BERT's classes with heads have it now."""
    # A checkpoint of BertModel alone has no prefix; the first ones called a LayerNorm's parameters gamma and beta.
    name = name if name.startswith(("bert.", "cls.", "classifier.")) else f"bert.{name}"
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _tables(config: DslmBertConfig) -> list[str]:
    return ["word_embeddings", "position_embeddings", *(["token_type_embeddings"] if config.type_vocab_size else [])]


def _both(modules: dict[str, str]) -> dict[str, str]:
    return {f"{ours}.{tail}": f"{theirs}.{tail}" for ours, theirs in modules.items() for tail in ("weight", "bias")}
