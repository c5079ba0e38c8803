"""Weights to start from: a checkpoint of any layout, or a Hugging Face folder."""

from typing import Any

from megatron.dslm.arguments.pretrained import FLAG, is_hf_folder
from megatron.dslm.checkpointing import find_checkpoint, load_weights
from megatron.dslm.huggingface import load_hf_weights


def load_pretrained(chunks: list[Any], folder: str) -> list[str]:
    """Fills unwrapped chunks of any layout from --pretrained-checkpoint; the names of what it has nothing for.

    Raises:
        ValueError: a tensor of another shape, by its name, or weights that are not safetensors.
    """
    if is_hf_folder(folder):
        return load_hf_weights(chunks, folder, strict=False, flag=FLAG)
    checkpoint = find_checkpoint(folder, FLAG)
    assert checkpoint is not None
    return load_weights(chunks, checkpoint, FLAG)


def told(folder: str, new: list[str]) -> str:
    """A line about where the weights come from, `new` being what `load_pretrained` gave on the rank that speaks."""
    return f"pretrained weights from {folder}" + (f"; drawn anew: {', '.join(new)}" if new else "")
