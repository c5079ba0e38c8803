"""What a .bin/.idx pair holds, as a short digest: data are known by their content, not by their path."""

import hashlib
import os
from argparse import Namespace

from dslm_patches.errors import UserError
from megatron.dslm.config.one_line_parser import spelled

_BLOCK_BYTES = 1 << 16
_BLOCKS = 64
"""So many blocks of the .bin are looked at, evenly spread, the first and the last among them."""
_READ_BYTES = 1 << 22
BLEND_PERIOD = 1 << 20
"""Samples after which a blend by weights begins again, so that any of them can be found without those before."""
PATH_FLAGS = ("data_path", "train_data_path", "valid_data_path", "test_data_path")


def content_digest(prefix: str) -> str:
    """32 hex digits of a pair: its whole .idx, the size of its .bin, and blocks of it (all of it up to 4 MiB).

    Indices of samples follow from the .idx alone; the blocks tell other text of the same lengths.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(prefix + ".idx", "rb") as index:
        while part := index.read(_READ_BYTES):
            digest.update(part)
    size = os.path.getsize(prefix + ".bin")
    digest.update(f"|{size}|".encode())
    with open(prefix + ".bin", "rb") as tokens:
        last = max(0, size - _BLOCK_BYTES)
        for place in sorted({last * step // (_BLOCKS - 1) for step in range(_BLOCKS)}):
            tokens.seek(place)
            digest.update(tokens.read(_BLOCK_BYTES))
    return digest.hexdigest()


def split_blend(blend: list[str] | None) -> tuple[list[str], list[float] | None]:
    """The prefixes of a path flag and their weights, None where none are given: PREFIX ..., or WEIGHT PREFIX ...

    The flags are checked before: here a blend of numbers and prefixes in turn has weights, any other has none.
    """
    if blend is None:
        return [], None
    if len(blend) % 2 == 0:
        try:
            return blend[1::2], [float(weight) for weight in blend[::2]]
        except ValueError:
            pass
    return blend, None


def describe_data(args: Namespace) -> None:
    """Sets args.data_content, the digest of each prefix that the path flags name, and args.contents, each flag's
    digests and weights.

    Raises:
        UserError: a flag names the same data twice.
    """
    blends = {name: split_blend(getattr(args, name)) for name in PATH_FLAGS if getattr(args, name) is not None}
    prefixes = {prefix for of, _ in blends.values() for prefix in of}
    args.data_content = {prefix: content_digest(prefix) for prefix in sorted(prefixes)}
    for name, (of, _) in blends.items():
        for number, prefix in enumerate(of):
            first = next((one for one in of[:number] if args.data_content[one] == args.data_content[prefix]), None)
            if first is not None:  # each would start with the same samples, masked the same way
                repeated = f"{prefix} twice" if first == prefix else f"{first} and {prefix}, which hold the same data"
                raise UserError(
                    f"{spelled(name)} names {repeated}: that only repeats samples; give it once, with a weight"
                )
    args.contents = {
        name: [[args.data_content[prefix] for prefix in of], weights] for name, (of, weights) in blends.items()
    }
