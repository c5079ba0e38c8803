"""The flags of a pretrained model, read off its folder."""

import os
from typing import Any

from megatron.dslm.checkpoint_folder import ARCHITECTURE, SCHEME, find_checkpoint, read_arguments
from megatron.dslm.huggingface import hf_arguments

FLAG = "--pretrained-checkpoint"
_WANTED = (*ARCHITECTURE, *SCHEME, "vocab_size", "tokenizer_type", "tokenizer_sha256")


def pretrained_arguments(folder: str) -> dict[str, Any]:
    """The model and depth-scheme flags of the BERT in `folder`, its vocab_size and tokenizer, and vocab_file if there.

    Args:
        folder: what --save of the trainer wrote, or a Hugging Face folder.

    Raises:
        ValueError: nothing there, or no BERT.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{FLAG} {folder} is not a folder")
    if is_hf_folder(folder):
        saved = hf_arguments(folder, FLAG)
        vocabulary = os.path.join(folder, "vocab.txt")
        if os.path.isfile(vocabulary):
            saved["vocab_file"] = vocabulary
    else:
        checkpoint = find_checkpoint(folder, FLAG)
        if checkpoint is None:
            raise ValueError(f"{FLAG} {folder} holds no checkpoint of pretrain_bert.py, and no Hugging Face model")
        saved = read_arguments(checkpoint, FLAG)
    if saved["model"] != "bert":
        raise ValueError(f"{FLAG} {folder} holds a {saved['model'].upper()}, and fine-tuning needs a BERT")
    found = {name: saved[name] for name in (*_WANTED, "vocab_file") if name in saved}
    if found.get("tokenizer_sha256") is None:
        found.pop("tokenizer_sha256", None)
    return found


def is_hf_folder(folder: str) -> bool:
    """Whether a folder is Hugging Face's, with a config.json."""
    return os.path.isfile(os.path.join(folder, "config.json"))
