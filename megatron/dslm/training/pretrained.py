"""Weights to start from: a checkpoint of any layout, or a Hugging Face folder."""

from argparse import Namespace
from typing import Any

from dslm_patches.hf_folder import read_config
from megatron.dslm.arguments.pretrained import FLAG, is_hf_folder
from megatron.dslm.checkpoints.load import load_weights, newest_checkpoint
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from megatron.dslm.huggingface.weights import load_hf_weights

HEAD = "classification_head"


def load_pretrained(args: Namespace, chunks: list[Any], task: str | None) -> list[str]:
    """Fills unwrapped chunks of any layout from --pretrained-checkpoint; the names of what was left as drawn.

    A classification head is taken over where the folder's was trained for the same task alone: another task's would
    have other classes, and a stock BERT's another order of them.

    Raises:
        UserError: a tensor of another shape, by its name, or weights that are not safetensors.
    """
    folder = args.pretrained_checkpoint
    if is_hf_folder(folder):
        trained = (read_config(folder, FLAG).get("megatron") or {}).get("task")
        leave = None if trained == task else HEAD
        return load_hf_weights(chunks, folder, strict=False, flag=FLAG, leave=leave)
    checkpoint = newest_checkpoint(args, folder, FLAG, print)
    assert checkpoint is not None
    trained = read_arguments(checkpoint, FLAG).get("task")
    return load_weights(chunks, checkpoint, FLAG, leave=None if trained == task else HEAD)


def describe_pretrained(folder: str, new: list[str]) -> str:
    """A line about where the weights come from, `new` being what `load_pretrained` gave."""
    return f"pretrained weights from {folder}" + (f"; drawn anew: {', '.join(new)}" if new else "")
