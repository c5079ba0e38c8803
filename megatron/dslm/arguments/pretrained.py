"""The flags of a pretrained model, read off its folder."""

import os
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.hf_folder import weight_files
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from megatron.dslm.checkpoints.settings import ARCHITECTURE, DROPOUT, SCHEME
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.models.family import family

FLAG = "--pretrained-checkpoint"
FREE = ("seq_length", *DROPOUT)
"""What a run may set otherwise than pretraining did; under DeepScaleLM the output's scale follows from the dropouts."""
_WANTED = (*ARCHITECTURE, *SCHEME, *DROPOUT, "vocab_size", "tokenizer_type", "tokenizer_sha256")


def pretrained_arguments(folder: str, model: str) -> dict[str, Any]:
    """The model and depth-scheme flags of the model in `folder`, its vocab_size and tokenizer, and vocab_file if there.

    Args:
        folder: what --save of the trainer wrote, or a Hugging Face folder.
        model: the name of the family that it must hold.

    Raises:
        UserError: nothing there, or another model.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{FLAG} {folder} is not a folder")
    if is_hf_folder(folder):
        if find_spec("transformers") is None:
            raise UserError(f"{FLAG} {folder} is a Hugging Face folder: pip install 'dslm-megatron[hf]' to read it")
        from megatron.dslm.huggingface.fields import hf_arguments  # which itself needs this package

        saved = hf_arguments(folder, FLAG)
        weight_files(folder, FLAG)
        if not os.path.isfile(os.path.join(folder, "tokenizer_config.json")) and saved["tokenizer_sha256"] is None:
            del saved["tokenizer_type"]  # a guess
        vocabulary = os.path.join(folder, "vocab.txt")
        if os.path.isfile(vocabulary):
            saved["vocab_file"] = vocabulary
    else:
        checkpoint = find_checkpoint(folder, FLAG)
        if checkpoint is None:
            raise UserError(
                f"{FLAG} {folder} holds no checkpoint of {family(model).program}, and no Hugging Face model"
            )
        saved = read_arguments(checkpoint, FLAG)
    if saved["model"] != model:
        raise UserError(f"{FLAG} {folder} holds a {family(saved['model']).title}, not a {family(model).title}")
    found = {name: saved[name] for name in (*_WANTED, "vocab_file") if name in saved}
    if found.get("tokenizer_sha256") is None:
        found.pop("tokenizer_sha256", None)
    return found


def check_against_pretrained(args: Namespace, saved: dict[str, Any], free: Sequence[str]) -> None:
    """Refuses flags and a vocabulary (args.tokenizer) that are not those of the pretrained model.

    Args:
        saved: of `pretrained_arguments`; {} without a pretrained model.
        free: arguments that may differ.

    Raises:
        UserError: the flag and the folder are named.
    """
    folder = args.pretrained_checkpoint
    for name, value in saved.items():
        if name in vars(args) and name not in (*free, "vocab_file") and getattr(args, name) != value:
            given = f"{spelled(name)} {getattr(args, name)}"
            raise UserError(f"{given} contradicts {FLAG} {folder}, which has {value}")
    now = args.tokenizer.unique_identifiers["content_sha256"]
    if saved.get("tokenizer_sha256", now) != now:
        raise UserError(f"--vocab-file {args.vocab_file} is not the vocabulary of {FLAG} {folder}")
    if saved and args.tokenizer.vocab_size != saved["vocab_size"]:
        raise UserError(
            f"--vocab-file {args.vocab_file} has {args.tokenizer.vocab_size} tokens, and {FLAG} {folder} "
            f"{saved['vocab_size']}"
        )


def is_hf_folder(folder: str) -> bool:
    """Whether a folder is Hugging Face's, with a config.json."""
    return os.path.isfile(os.path.join(folder, "config.json"))
