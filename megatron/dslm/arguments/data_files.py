"""Looks at the data and vocabulary files before any process group starts, with numpy alone."""

import itertools
import math
import os
import struct
from argparse import Namespace
from typing import NamedTuple

import numpy as np

from dslm_patches.errors import UserError
from megatron.dslm.data.content import BLEND_PERIOD
from megatron.dslm.data.tokenizer import build_tokenizer
from megatron.dslm.models.family import family

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER_BYTES = len(_MAGIC) + 25
_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}
_AT_ONCE = 1 << 20
_TOKENS_CHECKED = 4_000_000
"""Tokens looked at for ids beyond the vocabulary, from the front of each file: enough to tell vocabularies apart."""
_PATHS = {"data_path": None, "train_data_path": "train", "valid_data_path": "validation", "test_data_path": "test"}
"""Arguments that hold prefixes, and the split that all of their documents are for."""


class _Index(NamedTuple):
    """An .idx file that holds together; the arrays are memory maps."""

    dtype: np.dtype
    """Of the .bin file's tokens."""
    lengths: np.ndarray
    """Tokens of each sequence."""
    pointers: np.ndarray
    """Bytes before each sequence."""
    ends: np.ndarray
    """0, and where each document ends among the sequences."""


def check_data_files(args: Namespace) -> None:
    """Builds the tokenizer (args.tokenizer), checks every .bin/.idx pair against it, counts what is not used of it.

    The counts are args.document_counts by split, of the splits that the run draws samples from; none of a family that
    uses every token.

    Raises:
        UserError: a missing, empty, foreign or truncated file, tokens beyond the vocabulary, or a split without a
            document that can be used; the file and flag are named.
    """
    args.tokenizer = build_tokenizer(args.tokenizer_type, args.vocab_file, args.merge_file)
    args.document_counts = {}
    for name, split in _PATHS.items():
        flag = f"--{name.replace('_', '-')}"
        for prefix in _prefixes(flag, getattr(args, name)):
            _check_splits(flag, prefix, _check_pair(flag, prefix, args), split, args)


def _prefixes(flag: str, blend: list[str] | None) -> list[str]:
    """The prefixes of a blend, which is one prefix, several, or weights and prefixes in turn."""
    if blend is None or len(blend) == 1:
        return blend or []
    weights = [word for word in blend if _is_number(word)]
    for word in weights:
        if os.path.isfile(word + ".idx"):
            raise UserError(f"{flag} {word} is a weight, but {word}.idx is there too: write ./{word} for the prefix")
    if not weights:
        prefixes = blend
    elif len(blend) % 2 == 0 and weights == blend[::2] and all(0 < float(one) < math.inf for one in weights):
        prefixes = blend[1::2]
    else:
        raise UserError(
            f"{flag} must be prefixes, or a positive weight before each prefix (leave out what is to have none)"
        )
    if weights and min(map(float, weights)) / sum(map(float, weights)) * BLEND_PERIOD < 1:
        raise UserError(f"{flag}: a weight of {min(weights, key=float)} is less than one sample in {BLEND_PERIOD:,}")
    return prefixes


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_pair(flag: str, prefix: str, args: Namespace) -> _Index:
    for path in (prefix + ".idx", prefix + ".bin"):
        if not os.path.lexists(path):
            raise UserError(f"{flag}: {path} does not exist (make it by tools/preprocess_data.py)")
        if not os.path.isfile(path):
            raise UserError(f"{flag}: {path} is not a file")
        if os.path.getsize(path) == 0:
            raise UserError(f"{flag}: {path} is empty")
    index = _read_index(flag, prefix + ".idx")
    expected = index.dtype.itemsize * _check_index(flag, prefix + ".idx", index)
    if os.path.getsize(prefix + ".bin") != expected:
        raise UserError(
            f"{flag}: {prefix}.bin has {os.path.getsize(prefix + '.bin')} bytes where its .idx says {expected}"
        )
    highest = int(np.fromfile(prefix + ".bin", dtype=index.dtype, count=_TOKENS_CHECKED).max())
    if highest >= args.tokenizer.vocab_size:
        raise UserError(
            f"{flag}: {prefix}.bin holds token {highest}, beyond the {args.tokenizer.vocab_size} of --vocab-file "
            f"{args.vocab_file}: it was made with another vocabulary"
        )
    return index


def _read_index(flag: str, path: str) -> _Index:
    """An index whose header and size agree."""
    with open(path, "rb") as index:
        header = index.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise UserError(f"{flag}: {path} is not an index of Megatron's data format")
    _, code, sequences, documents = struct.unpack("<QBQQ", header[len(_MAGIC) :])
    rest = os.path.getsize(path) - _HEADER_BYTES - 12 * sequences - 8 * documents
    if code not in _DTYPES or rest not in (0, sequences):  # a byte a sequence more where there are several modes
        raise UserError(f"{flag}: {path} is damaged or cut short")
    if sequences == 0 or documents < 2:
        raise UserError(f"{flag}: {path} holds no documents")
    return _Index(
        np.dtype(_DTYPES[code]),
        np.memmap(path, np.int32, "r", _HEADER_BYTES, sequences),
        np.memmap(path, np.int64, "r", _HEADER_BYTES + 4 * sequences, sequences),
        np.memmap(path, np.int64, "r", _HEADER_BYTES + 12 * sequences, documents),
    )


def _check_index(flag: str, path: str, index: _Index) -> int:
    """Refuses sequences that do not follow each other and documents that are not made of them; the tokens in all."""
    size, sequences, boundaries = 0, len(index.lengths), len(index.ends)
    for begin in range(0, sequences, _AT_ONCE):
        steps = index.dtype.itemsize * index.lengths[begin : begin + _AT_ONCE].astype(np.int64)
        starts = size + np.cumsum(steps) - steps
        if steps.min() < 0 or not np.array_equal(index.pointers[begin : begin + _AT_ONCE], starts):
            raise UserError(f"{flag}: {path} is damaged: sequence {begin} or one after it is not where it should be")
        size += int(steps.sum())
    falling = any(
        np.diff(index.ends[begin : begin + _AT_ONCE + 1]).min() < 0 for begin in range(0, boundaries - 1, _AT_ONCE)
    )
    if index.ends[0] != 0 or index.ends[-1] != sequences or falling:
        raise UserError(f"{flag}: {path} is damaged: its documents are not made of its {sequences} sequences")
    return size // index.dtype.itemsize


def _check_splits(flag: str, prefix: str, index: _Index, whole: str | None, args: Namespace) -> None:
    """Refuses a split with no whole document, or with none that the model can use; adds to args.document_counts.

    Args:
        whole: the split that all documents are for; None where --split cuts them.
    """
    own = family(args.model)
    units = own.units(index.lengths, index.ends)
    edges = {whole: (0, units)} if whole else _split_edges(args.split, units)
    for split, (begin, end) in edges.items():
        if begin == end:
            raise UserError(
                f"--split {args.split} leaves none of the {units} documents of {flag} {prefix} for {split}: give it a "
                "larger share, or 0"
            )
        counts = own.check_documents(index.lengths, index.ends, begin, end, split, f"{flag}: {prefix}", args)
        if counts is not None:
            known = args.document_counts.get(split)
            args.document_counts[split] = counts if known is None else known + counts


def _split_edges(split: str, documents: int) -> dict[str, tuple[int, int]]:
    """The documents of each split with a share, cut to the letter as megatron-core cuts them."""
    shares = np.array([float(share) for share in split.split(",")])
    ends = np.cumsum(shares / shares.sum()).tolist()
    edges = itertools.pairwise(round(end * documents) for end in (0.0, *ends))
    names = ("train", "validation", "test")
    return {name: edge for name, share, edge in zip(names, shares, edges, strict=True) if share}
