"""From texts to token ids in BERT's form: [CLS] first [SEP], or [CLS] first [SEP] second [SEP]."""

from collections.abc import Sequence
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.tasks.base import Example


def encode(
    tokenizer: Any, first: str, second: str | None, length: int, *, cut_first_only: bool
) -> tuple[list[int], list[int]]:
    """Token ids and segments (0, then 1 for the second text with its [SEP]), at most `length` of each.

    What is too long loses tokens at the end: of whichever text is longer, or of the first alone.

    A second text that may not be cut must fit: see `check_lengths`.
    """
    if second is None:
        ids = tokenizer.tokenize(first)[: length - 2]
        return [tokenizer.cls, *ids, tokenizer.sep], [0] * (len(ids) + 2)
    a, b = tokenizer.tokenize_batch([first, second])
    room = length - 3
    if cut_first_only:
        assert len(b) <= room, f"{second!r} does not fit {length} tokens"
        a = a[: room - len(b)]
    else:
        a, b = _cut_longer(a, b, room)
    return [tokenizer.cls, *a, tokenizer.sep, *b, tokenizer.sep], [0] * (len(a) + 2) + [1] * (len(b) + 1)


def encode_example(
    tokenizer: Any, example: Example, length: int, *, cut_first_only: bool
) -> list[tuple[list[int], list[int]]]:
    """`encode` of each of an example's texts."""
    return [encode(tokenizer, *pair, length, cut_first_only=cut_first_only) for pair in example.texts]


def check_lengths(tokenizer: Any, examples: Sequence[Example], length: int) -> None:
    """Looks for second texts that do not fit into `length` tokens with [CLS] and two [SEP], where they are never cut.

    Raises:
        UserError: the longest one is named, and --seq-length.
    """
    texts = [(example.id, second) for example in examples for _, second in example.texts if second is not None]
    ids = tokenizer.tokenize_batch([second for _, second in texts])
    longest = max(range(len(texts)), key=lambda index: len(ids[index]), default=None)
    if longest is not None and len(ids[longest]) + 3 > length:
        raise UserError(
            f"--seq-length {length} is too short: the question of example {texts[longest][0]} with an answer is "
            f"{len(ids[longest])} tokens, which are never cut; give {len(ids[longest]) + 3} or more"
        )


def _cut_longer(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
    """What is left when the longer of the two loses its last token until both fit (the second where they are equal)."""
    half = room // 2
    if len(a) + len(b) <= room:
        return a, b
    if len(a) <= half:
        return a, b[: room - len(a)]
    if len(b) <= half:
        return a[: room - len(b)], b
    return a[: room - half], b[:half]
