"""The flags of a pretrained model, read off its folder."""

import os
from typing import Any

from megatron.dslm.checkpoint_folder import ARCHITECTURE, SCHEME, find_checkpoint, read_arguments

FLAG = "--pretrained-checkpoint"


def pretrained_arguments(folder: str) -> dict[str, Any]:
    """The model and depth-scheme flags of the model in `folder`, with its vocab_size and tokenizer.

    Raises:
        ValueError: nothing there, or no BERT.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{FLAG} {folder} is not a folder")
    checkpoint = find_checkpoint(folder, FLAG)
    if checkpoint is None:
        raise ValueError(f"{FLAG} {folder} holds no checkpoint of pretrain_bert.py")
    saved = read_arguments(checkpoint, FLAG)
    if saved["model"] != "bert":
        raise ValueError(f"{FLAG} {folder} holds a {saved['model'].upper()}, and fine-tuning needs a BERT")
    wanted = (*ARCHITECTURE, *SCHEME, "vocab_size", "tokenizer_type", "tokenizer_sha256")
    return {name: saved[name] for name in wanted if name in saved}
