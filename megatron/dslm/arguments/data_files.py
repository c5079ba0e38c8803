"""Looks at the data and vocabulary files before any process group starts, with numpy alone."""

import os
import struct
from argparse import Namespace

import numpy as np

from dslm_patches.errors import UserError
from megatron.dslm.data.tokenizer import build_tokenizer

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER_BYTES = len(_MAGIC) + 25
_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}
_SEQUENCES_AT_ONCE = 1 << 20
_TOKENS_CHECKED = 4_000_000
"""Tokens looked at for ids beyond the vocabulary, from the front of each file: enough to tell vocabularies apart."""


def check_data_files(args: Namespace) -> None:
    """Builds the tokenizer (args.tokenizer) and checks every .bin/.idx pair against it.

    Raises:
        UserError: a missing, empty, foreign or truncated file, or tokens beyond the vocabulary; the file and
            flag are named.
    """
    args.tokenizer = build_tokenizer(args.tokenizer_type, args.vocab_file, args.merge_file)
    for name in ("data_path", "train_data_path", "valid_data_path", "test_data_path"):
        for prefix in _prefixes(f"--{name.replace('_', '-')}", getattr(args, name)):
            _check_pair(f"--{name.replace('_', '-')}", prefix, args)


def _prefixes(flag: str, blend: list[str] | None) -> list[str]:
    """The prefixes of a blend, which is one prefix, several, or weights and prefixes in turn."""
    if blend is None or len(blend) == 1:
        return blend or []
    try:
        weights = [float(weight) for weight in blend[::2]]
    except ValueError:
        return blend
    if len(blend) % 2 or min(weights) <= 0:
        raise UserError(f"{flag} must be prefixes, or a positive weight before each prefix")
    return blend[1::2]


def _check_pair(flag: str, prefix: str, args: Namespace) -> None:
    for path in (prefix + ".idx", prefix + ".bin"):
        if not os.path.isfile(path):
            raise UserError(f"{flag}: {path} does not exist (make it by tools/preprocess_data.py)")
        if os.path.getsize(path) == 0:
            raise UserError(f"{flag}: {path} is empty")
    dtype, expected, sequences, documents = _read_index(flag, prefix + ".idx")
    if os.path.getsize(prefix + ".bin") != expected:
        raise UserError(
            f"{flag}: {prefix}.bin has {os.path.getsize(prefix + '.bin')} bytes where its .idx says {expected}"
        )
    if args.model == "bert" and not args.bert_no_binary_head and sequences == documents - 1:
        raise UserError(
            f"{flag}: {prefix} has one sentence a document; next-sentence prediction needs data made with "
            "--split-sentences (or give --bert-no-binary-head)"
        )
    if args.split is not None:
        _check_split(args.split, flag, prefix, documents - 1 if args.model == "bert" else sequences)
    highest = int(np.fromfile(prefix + ".bin", dtype=dtype, count=_TOKENS_CHECKED).max())
    if highest >= args.tokenizer.vocab_size:
        raise UserError(
            f"{flag}: {prefix}.bin holds token {highest}, beyond the {args.tokenizer.vocab_size} of --vocab-file "
            f"{args.vocab_file}: it was made with another vocabulary"
        )


def _read_index(flag: str, path: str) -> tuple[np.dtype, int, int, int]:
    """Token type, bytes of the .bin, sequences, and boundaries of documents, of an index that holds together."""
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
    dtype = np.dtype(_DTYPES[code])
    lengths = np.memmap(path, np.int32, "r", _HEADER_BYTES, sequences)
    pointers = np.memmap(path, np.int64, "r", _HEADER_BYTES + 4 * sequences, sequences)
    ends = np.memmap(path, np.int64, "r", _HEADER_BYTES + 12 * sequences, documents)
    size = 0
    for begin in range(0, sequences, _SEQUENCES_AT_ONCE):
        steps = dtype.itemsize * lengths[begin : begin + _SEQUENCES_AT_ONCE].astype(np.int64)
        starts = size + np.cumsum(steps) - steps
        if steps.min() < 0 or not np.array_equal(pointers[begin : begin + _SEQUENCES_AT_ONCE], starts):
            raise UserError(f"{flag}: {path} is damaged: sequence {begin} or one after it is not where it should be")
        size += int(steps.sum())
    if ends[0] != 0 or ends[-1] != sequences or np.diff(ends).min() < 0:
        raise UserError(f"{flag}: {path} is damaged: its documents are not made of its {sequences} sequences")
    return dtype, size, int(sequences), int(documents)


def _check_split(split: str, flag: str, prefix: str, documents: int) -> None:
    """Refuses a split with a share of no whole document, reckoned as megatron-core does."""
    shares = [float(share) for share in split.split(",")]
    edges = [sum(shares[:index]) / sum(shares) for index in range(4)]
    for name, share, begin, end in zip(("train", "validation", "test"), shares, edges, edges[1:], strict=False):
        if share and round(begin * documents) == round(end * documents):
            raise UserError(
                f"--split {split} leaves none of the {documents} documents of {flag} {prefix} for {name}: give it a "
                "larger share, or 0"
            )
