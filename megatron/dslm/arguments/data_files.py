"""Looks at the data and vocabulary files before any process group starts, with numpy alone."""

import os
import struct
from argparse import Namespace

import numpy as np

from megatron.dslm.data.tokenizer import build_tokenizer

_MAGIC = b"MMIDIDX\x00\x00"
_DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}
_TOKENS_CHECKED = 4_000_000
"""Tokens looked at for ids beyond the vocabulary, from the front of each file: enough to tell vocabularies apart."""


def check_data_files(args: Namespace) -> None:
    """Builds the tokenizer (args.tokenizer) and checks every .bin/.idx pair against it.

    Raises:
        ValueError: a missing, empty, foreign or truncated file, or tokens beyond the vocabulary; the file and
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
        raise ValueError(f"{flag} must be prefixes, or a positive weight before each prefix")
    return blend[1::2]


def _check_pair(flag: str, prefix: str, args: Namespace) -> None:
    for path in (prefix + ".idx", prefix + ".bin"):
        if not os.path.isfile(path):
            raise ValueError(f"{flag}: {path} does not exist (make it by tools/preprocess_data.py)")
        if os.path.getsize(path) == 0:
            raise ValueError(f"{flag}: {path} is empty")
    with open(prefix + ".idx", "rb") as index:
        header = index.read(len(_MAGIC) + 25)
        if len(header) < len(_MAGIC) + 25 or not header.startswith(_MAGIC):
            raise ValueError(f"{flag}: {prefix}.idx is not an index of Megatron's data format")
        _, code, sequences, documents = struct.unpack("<QBQQ", header[len(_MAGIC) :])
        lengths = np.fromfile(index, dtype=np.int32, count=min(sequences, 2**40))
    if code not in _DTYPES or len(lengths) < sequences:
        raise ValueError(f"{flag}: {prefix}.idx is damaged or cut short")
    if sequences == 0 or documents < 2:
        raise ValueError(f"{flag}: {prefix}.idx holds no documents")
    dtype = np.dtype(_DTYPES[code])
    expected = int(lengths.sum(dtype=np.int64)) * dtype.itemsize
    if os.path.getsize(prefix + ".bin") != expected:
        raise ValueError(
            f"{flag}: {prefix}.bin has {os.path.getsize(prefix + '.bin')} bytes where its .idx says {expected}"
        )
    if args.model == "bert" and not args.bert_no_binary_head and sequences == documents - 1:
        raise ValueError(
            f"{flag}: {prefix} has one sentence a document; next-sentence prediction needs data made with "
            "--split-sentences (or give --bert-no-binary-head)"
        )
    if args.split is not None:
        _check_split(args.split, flag, prefix, documents - 1 if args.model == "bert" else sequences)
    highest = int(np.fromfile(prefix + ".bin", dtype=dtype, count=_TOKENS_CHECKED).max())
    if highest >= args.tokenizer.vocab_size:
        raise ValueError(
            f"{flag}: {prefix}.bin holds token {highest}, beyond the {args.tokenizer.vocab_size} of --vocab-file "
            f"{args.vocab_file}: it was made with another vocabulary"
        )


def _check_split(split: str, flag: str, prefix: str, documents: int) -> None:
    """Refuses a split with a share of no whole document, reckoned as megatron-core does."""
    shares = [float(share) for share in split.split(",")]
    edges = [sum(shares[:index]) / sum(shares) for index in range(4)]
    for name, share, begin, end in zip(("train", "validation", "test"), shares, edges, edges[1:], strict=False):
        if share and round(begin * documents) == round(end * documents):
            raise ValueError(
                f"--split {split} leaves none of the {documents} documents of {flag} {prefix} for {name}: give it a "
                "larger share, or 0"
            )
