"""The tokenizer of a run on its way into a Hugging Face folder and out of one."""

import os
from types import SimpleNamespace
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.data.tokenizer import WORDPIECE_TYPES, Tokenizer, build_tokenizer


def checked_tokenizer(saved: dict[str, Any], vocab_file: str | None, merge_file: str | None) -> Tokenizer | None:
    """The run's tokenizer, from the files given.

    Raises:
        UserError: files of another vocabulary than the checkpoint records.
    """
    if vocab_file is None:
        if merge_file is not None:
            raise UserError(f"--merge-file {merge_file} needs --vocab-file beside it")
        return None
    tokenizer = build_tokenizer(saved["tokenizer_type"], vocab_file, merge_file)
    recorded = saved.get("tokenizer_sha256")
    if recorded not in (None, tokenizer.unique_identifiers["content_sha256"]):
        raise UserError(f"--vocab-file {vocab_file} is not the vocabulary that the model was trained with")
    return tokenizer


def special_ids(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The configuration's ids of special tokens."""
    if tokenizer is None:
        return {}
    if tokenizer.tokenizer_type in WORDPIECE_TYPES:
        return {"pad_token_id": tokenizer.pad}
    return {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}


def tokenizer_files(tokenizer: Tokenizer, vocab_file: str | None, merge_file: str | None) -> Any:
    """The tokenizer as `dslm_patches.hf.export` writes it."""
    from dslm_patches.hf.export import TokenizerFiles

    assert vocab_file is not None
    if tokenizer.tokenizer_type in WORDPIECE_TYPES:
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "mask", "pad")}
        return TokenizerFiles(tokenizer._backend, special, {"vocab.txt": vocab_file})
    assert merge_file is not None
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), tokenizer.inv_vocab[tokenizer.eod])
    return TokenizerFiles(tokenizer._backend, special, {"vocab.json": vocab_file, "merges.txt": merge_file})


def folder_tokenizer(folder: str, saved: dict[str, Any]) -> Any:
    """The folder's own tokenizer where its files are there, else what a checkpoint records of one."""
    wordpiece = saved["tokenizer_type"] in WORDPIECE_TYPES
    files = [os.path.join(folder, name) for name in (("vocab.txt",) if wordpiece else ("vocab.json", "merges.txt"))]
    if all(map(os.path.isfile, files)):
        tokenizer = build_tokenizer(saved["tokenizer_type"], files[0], None if wordpiece else files[1])
        if tokenizer.vocab_size == saved["vocab_size"]:
            return tokenizer
    return SimpleNamespace(
        vocab_size=saved["vocab_size"],
        tokenizer_type=saved["tokenizer_type"],
        unique_identifiers={"content_sha256": saved["tokenizer_sha256"]},
    )
