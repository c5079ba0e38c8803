"""The weights of a whole megatron-core BERT or GPT as those of the Hugging Face model and back, bit for bit."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from .configuration_dslm import DslmConfig
from .tensor_names import Correspondence, correspondences, full_names

TIED_OUTPUT = {False: "cls.predictions.decoder.weight", True: "lm_head.weight"}
"""By causality: the output weight, which a tied model may store a second time."""


def to_hf(state: Mapping[str, Tensor], config: DslmConfig) -> dict[str, Tensor]:
    """The Hugging Face state dict of Megatron's whole weights under layout-free names.

    Raises:
        ValueError: a tensor that is unknown, missing, or of other rows than the configuration says, by its name.
    """
    known = {one.megatron: one for one in correspondences(config)}
    _check(set(state), [(one, (one.megatron,)) for one in known.values()])
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        pieces = split(tensor, known[name], config)
        converted.update(zip(known[name].hf, (piece.contiguous() for piece in pieces), strict=True))
    return converted


def to_megatron(state: Mapping[str, Tensor], config: DslmConfig, *, strict: bool = True) -> dict[str, Tensor]:
    """Megatron's whole weights under layout-free names, of a Hugging Face state dict of any of the classes.

    Args:
        strict: False leaves out tensors that Megatron's pretraining models have no place for, as a new classifier.

    Raises:
        ValueError: a tensor that is unknown, missing, or of other rows than the configuration says, by its name.
    """
    given = full_names(state, config)
    here = present(given, config, strict=strict)
    return {one.megatron: join(one, lambda name: state[given[name]], config) for one in here}


def present(names: Collection[str], config: DslmConfig, *, strict: bool = True) -> list[Correspondence]:
    """The correspondences of the parts that a Hugging Face state dict holds, of which these are the full names.

    Raises:
        ValueError: a tensor that is unknown (if strict), or missing, by its name.
    """
    names = set(names)
    if config.tie_word_embeddings:
        names.discard(TIED_OUTPUT[config.causal])
    return _check(names, [(one, one.hf) for one in correspondences(config)], strict=strict)


def join(one: Correspondence, read: Callable[[str], Tensor], config: DslmConfig) -> Tensor:
    """Megatron's tensor of a correspondence, from the Hugging Face tensors that `read` gives."""
    pieces = [read(name) for name in one.hf]
    for name, piece, rows in zip(one.hf, pieces, _rows(one, config), strict=True):
        if rows is not None and piece.size(0) != rows:
            raise ValueError(f"{name} has {piece.size(0)} rows where the configuration says {rows}")
    if one.layout != "qkv":
        return pieces[0] if one.layout == "plain" else torch.cat(pieces)
    groups = [piece.unflatten(0, (config.num_key_value_heads or 1, -1)) for piece in pieces]
    return torch.cat(groups, dim=1).flatten(0, 1)


def split(tensor: Tensor, one: Correspondence, config: DslmConfig) -> list[Tensor]:
    """The Hugging Face tensors of a correspondence, from Megatron's."""
    rows = _rows(one, config)
    if one.layout == "plain":
        return [tensor]
    sizes = [size for size in rows if size is not None]
    if tensor.size(0) != sum(sizes):
        raise ValueError(f"{one.megatron} has {tensor.size(0)} rows where the configuration says {sum(sizes)}")
    if one.layout == "gated":
        return list(tensor.split(sizes))
    groups = config.num_key_value_heads or 1
    grouped = tensor.unflatten(0, (groups, -1))
    return [piece.flatten(0, 1) for piece in grouped.split([size // groups for size in sizes], dim=1)]


def _rows(one: Correspondence, config: DslmConfig) -> list[int | None]:
    """Rows of each Hugging Face tensor, where the layout depends on them."""
    if one.layout == "gated":
        return [config.intermediate_size] * 2
    if one.layout == "plain":
        return [None]
    assert config.head_dim is not None
    assert config.num_key_value_heads is not None
    keys = config.num_key_value_heads * config.head_dim
    return [config.num_attention_heads * config.head_dim, keys, keys]


def _check(
    names: Collection[str], known: list[tuple[Correspondence, tuple[str, ...]]], *, strict: bool = True
) -> list[Correspondence]:
    """The correspondences whose part is there; a part is there as a whole or not at all, the body always."""
    expected = {name for _, parts in known for name in parts}
    if strict:
        for name in sorted(set(names) - expected):
            raise ValueError(f"{name}: a tensor that the model of the configuration does not have")
    parts = {"body"} | {one.part for one, needed in known if not set(needed).isdisjoint(names)}
    here = [(one, needed) for one, needed in known if one.part in parts]
    for _, needed in here:
        for name in needed:
            if name not in names:
                raise ValueError(f"{name} is missing from the weights")
    return [one for one, _ in here]
