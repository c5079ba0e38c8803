"""Vocabulary files as published with BERT and GPT-2: read, and refused with one line where they are wrong.

Files that went through editors of other systems give the same ids and the same text as the published ones.
"""

import json
from pathlib import Path
from typing import Any

from dslm_patches.errors import UserError

END_OF_TEXT = "<|endoftext|>"

_WORDPIECE_FORMAT = "expected a BERT vocab.txt: one token a line, [PAD] [UNK] [CLS] [SEP] [MASK] among them"
_BPE_VOCAB_FORMAT = "expected GPT-2's encoder.json (vocab.json, not tokenizer.json): one JSON object from token to id"
_BPE_MERGES_FORMAT = "expected GPT-2's vocab.bpe: two space-separated pieces a line"


def _read(path: str, flag: str, expected: str) -> str:
    """The file's text as it was published: without what editors add to it and tokens cannot hold.

    That is a byte-order mark, carriage returns, blanks at the ends of lines, and blank lines at its end.
    """
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}; {expected}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path}: not UTF-8 text; {expected}") from error
    if "\0" in content:  # ASCII in UTF-16 without a mark is valid UTF-8
        raise UserError(f"{flag} {path}: not UTF-8 text; {expected}")
    # not splitlines() or strip(): tokens may contain what Unicode counts as line breaks and blanks
    lines = [line.rstrip(" \t") for line in content.split("\n")]
    end = "" if lines[-1] else "\n"  # kept as it is: checkpoints record the text's SHA-256
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{flag} {path}: the file is empty; {expected}")
    return "\n".join(lines) + end


def read_wordpiece_vocab(path: str) -> tuple[dict[str, int], str]:
    """Token to id of a BERT vocab.txt, and the file's text. Raises UserError for --vocab-file."""
    content = _read(path, "--vocab-file", _WORDPIECE_FORMAT)
    tokens = content.removesuffix("\n").split("\n")
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token not in tokens]
    if missing:
        others = [token for token in ("<pad>", "<unk>", "<s>", "</s>", "<mask>") if token in tokens]
        hint = f", but with RoBERTa's {' '.join(others)}" if others else ""
        if content.startswith("{"):
            hint = ", but JSON, as tokenizer.json and GPT-2's encoder.json are"
        raise UserError(f"--vocab-file {path}: without {' '.join(missing)}{hint}; {_WORDPIECE_FORMAT}")
    vocab: dict[str, int] = {}
    for line_number, token in enumerate(tokens, 1):
        if not token:
            raise UserError(f"--vocab-file {path}: line {line_number} is blank; {_WORDPIECE_FORMAT}")
        if token in vocab:
            raise UserError(
                f"--vocab-file {path}: '{token}' is on lines {vocab[token] + 1} and {line_number}; "
                f"{_WORDPIECE_FORMAT}, each once"
            )
        vocab[token] = len(vocab)
    return vocab, content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise UserError(f"'{key}' is there twice")
        result[key] = value
    return result


def read_bpe_vocab(path: str) -> tuple[dict[str, int], str]:
    """Token to id, in the order of the ids, of GPT-2's encoder.json, and its text. UserError if wrong."""
    from tokenizers.pre_tokenizers import ByteLevel

    content = _read(path, "--vocab-file", _BPE_VOCAB_FORMAT)
    try:
        vocab = json.loads(content, object_pairs_hook=_unique_keys)
    except ValueError as error:
        raise UserError(f"--vocab-file {path}: {error}; {_BPE_VOCAB_FORMAT}") from error
    if not isinstance(vocab, dict) or not all(type(index) is int for index in vocab.values()):
        raise UserError(f"--vocab-file {path}: not an object of integers; {_BPE_VOCAB_FORMAT}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise UserError(f"--vocab-file {path}: the ids are not 0 to {len(vocab) - 1}, each once; {_BPE_VOCAB_FORMAT}")
    if END_OF_TEXT not in vocab:
        raise UserError(f"--vocab-file {path}: without {END_OF_TEXT}; {_BPE_VOCAB_FORMAT}, {END_OF_TEXT} among them")
    missing = set(ByteLevel.alphabet()) - vocab.keys()
    if missing:
        # such bytes would be dropped from the text without a word
        raise UserError(f"--vocab-file {path}: without {len(missing)} of the 256 byte tokens; {_BPE_VOCAB_FORMAT}")
    return dict(sorted(vocab.items(), key=lambda item: item[1])), content


def read_bpe_merges(path: str, vocab: dict[str, int]) -> tuple[list[tuple[str, str]], str]:
    """The merges of GPT-2's vocab.bpe, in order, and its text. Raises UserError for --merge-file."""
    content = _read(path, "--merge-file", _BPE_MERGES_FORMAT)
    merges: list[tuple[str, str]] = []
    for line_number, line in enumerate(content.split("\n"), 1):
        if not line.strip() or (line_number == 1 and line.startswith("#version")):
            continue
        pieces = line.split(" ")
        if len(pieces) != 2:
            raise UserError(f"--merge-file {path}: line {line_number} is not two pieces; {_BPE_MERGES_FORMAT}")
        left, right = pieces
        if not {left, right, left + right} <= vocab.keys():
            raise UserError(
                f"--merge-file {path}: line {line_number} joins '{left}' and '{right}', which --vocab-file "
                "does not have; expected the vocab.bpe that belongs to the --vocab-file"
            )
        merges.append((left, right))
    if not merges:
        raise UserError(f"--merge-file {path}: no merges; {_BPE_MERGES_FORMAT}")
    if len(set(merges)) < len(merges):
        raise UserError(f"--merge-file {path}: a merge is there twice; {_BPE_MERGES_FORMAT}, each once")
    return merges, content
