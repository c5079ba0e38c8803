"""Which tensor of a megatron-core BERT or GPT is which of the Hugging Face model, and how it is laid out in it.

Megatron's names are layout-free: layers numbered from 1 over the whole model, tied weights under one name
(`dslm_patches.mcore.shards`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from .configuration_dslm import DslmConfig
from .prescription_dslm import ACTIVATIONS

Layout = Literal["plain", "qkv", "gated"]

BODY_PREFIX = {False: "bert.", True: "model."}
"""By causality: what stands before the body's names in a model with heads."""


@dataclass(frozen=True)
class Correspondence:
    """One tensor of Megatron's model and the tensors that hold its rows in the Hugging Face model.

    Attributes:
        layout: "plain" for one tensor alike; "qkv" for a query group's queries, key and value in turn, in three
            tensors; "gated" for the gate half and the up half, in two.
        part: what the model may have or not as a whole: "body", "lm_head", "pooler", "binary_head", "classifier".
    """

    megatron: str
    hf: tuple[str, ...]
    layout: Layout = "plain"
    part: str = "body"


def correspondences(config: DslmConfig) -> list[Correspondence]:
    """All tensors of the model, with every head it can have."""
    return [*_embeddings(config), *_layers(config), *(_gpt_head(config) if config.causal else _bert_heads(config))]


def full_names(names: Iterable[str], config: DslmConfig) -> dict[str, str]:
    """A state dict's names by those that the classes with heads use: the body alone has no prefix."""
    body = BODY_PREFIX[config.causal]
    names = list(names)
    bare = not any(name.startswith(body) for name in names)
    return {body + name if bare else name: name for name in names}


def _embeddings(config: DslmConfig) -> Iterator[Correspondence]:
    tables = {"word_embeddings": "word_embeddings"}
    if config.position_embedding_type == "learned_absolute":
        tables["position_embeddings"] = "position_embeddings"
    if config.type_vocab_size > 0:
        tables["tokentype_embeddings"] = "token_type_embeddings"
    for megatron, hf in tables.items():
        yield Correspondence(f"embedding.{megatron}.weight", (f"{BODY_PREFIX[config.causal]}embeddings.{hf}.weight",))


def _layers(config: DslmConfig) -> Iterator[Correspondence]:
    body = BODY_PREFIX[config.causal]
    block = "decoder" if config.causal else "encoder"
    norm_tails = ("weight", "bias") if config.normalization == "LayerNorm" else ("weight",)
    linear_tails = ("weight", "bias") if config.use_bias else ("weight",)
    _, gated = ACTIVATIONS[config.hidden_act]
    linears: list[tuple[str, tuple[str, ...], Layout]] = [
        ("self_attention.linear_qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "qkv"),
        ("self_attention.linear_proj", ("self_attn.o_proj",), "plain"),
        ("mlp.linear_fc1", ("mlp.gate_proj", "mlp.up_proj"), "gated")
        if gated
        else ("mlp.linear_fc1", ("mlp.up_proj",), "plain"),
        ("mlp.linear_fc2", ("mlp.down_proj",), "plain"),
    ]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"{block}.layers.{layer + 1}", f"{body}layers.{layer}"
        for norm in ("input_layernorm", "pre_mlp_layernorm"):
            for tail in norm_tails:
                yield Correspondence(f"{ours}.{norm}.{tail}", (f"{theirs}.{norm}.{tail}",))
        for megatron, hf, layout in linears:
            for tail in linear_tails:
                yield Correspondence(f"{ours}.{megatron}.{tail}", tuple(f"{theirs}.{one}.{tail}" for one in hf), layout)
    for tail in norm_tails:
        yield Correspondence(f"{block}.final_layernorm.{tail}", (f"{body}final_layernorm.{tail}",))


def _gpt_head(config: DslmConfig) -> Iterator[Correspondence]:
    if not config.tie_word_embeddings:
        yield Correspondence("output_layer.weight", ("lm_head.weight",), part="lm_head")


def _bert_heads(config: DslmConfig) -> Iterator[Correspondence]:
    head = "cls.predictions"
    names = {f"lm_head.dense.{tail}": f"{head}.transform.dense.{tail}" for tail in ("weight", "bias")}
    for tail in ("weight", "bias") if config.normalization == "LayerNorm" else ("weight",):
        names[f"lm_head.layer_norm.{tail}"] = f"{head}.transform.layer_norm.{tail}"
    if not config.tie_word_embeddings:
        names["output_layer.weight"] = f"{head}.decoder.weight"
    names["output_layer.bias"] = f"{head}.decoder.bias"
    for megatron, hf in names.items():
        yield Correspondence(megatron, (hf,), part="lm_head")
    for tail in ("weight", "bias"):
        yield Correspondence(f"pooler.dense.{tail}", (f"bert.pooler.dense.{tail}",), part="pooler")
        yield Correspondence(f"binary_head.{tail}", (f"cls.seq_relationship.{tail}",), part="binary_head")
        yield Correspondence(f"classification_head.{tail}", (f"classifier.{tail}",), part="classifier")
