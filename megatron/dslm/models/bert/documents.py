"""The documents that megatron-core's BERT sampling leaves out, counted from an index alone.

The rules are those of `build_mapping_impl` in megatron-core's datasets/helpers.cpp.
"""

from argparse import Namespace
from dataclasses import dataclass

import numpy as np

from dslm_patches.errors import UserError
from megatron.dslm.data.long_sentences import LONGEST_SENTENCE

_AT_ONCE = 1 << 20


@dataclass
class DocumentCounts:
    """Documents of a split, and those of them that sampling leaves out, by reason."""

    documents: int = 0
    empty: int = 0
    one_sentence: int = 0
    long_sentence: int = 0

    @property
    def unused(self) -> int:
        """Documents left out."""
        return self.empty + self.one_sentence + self.long_sentence

    def reasons(self) -> list[tuple[int, str]]:
        """How many are left out for each reason that there is."""
        long = f"a sentence above {LONGEST_SENTENCE} tokens"
        counted = [(self.one_sentence, "one sentence"), (self.long_sentence, long), (self.empty, "empty")]
        return [(count, reason) for count, reason in counted if count]

    def __add__(self, other: "DocumentCounts") -> "DocumentCounts":
        return DocumentCounts(
            self.documents + other.documents,
            self.empty + other.empty,
            self.one_sentence + other.one_sentence,
            self.long_sentence + other.long_sentence,
        )


def count_documents(lengths: np.ndarray, ends: np.ndarray, begin: int, end: int, pairs: bool) -> DocumentCounts:
    """Counts documents `begin` to `end` of an index, in memory that does not grow with them.

    Args:
        lengths: tokens of each sentence, [sentences]; a memory map will do.
        ends: 0, and where each document ends among the sentences, [documents + 1]; a memory map will do.
        pairs: whether samples are pairs of sentences, for next-sentence prediction.
    """
    counts = DocumentCounts(end - begin)
    for first in range(begin, end, _AT_ONCE):
        bounds = np.array(ends[first : min(first + _AT_ONCE, end) + 1])
        sentences = np.diff(bounds)
        has_long = np.zeros(len(sentences), dtype=bool)
        for start in range(int(bounds[0]), int(bounds[-1]), _AT_ONCE):
            stop = min(start + _AT_ONCE, int(bounds[-1]))
            long = start + np.flatnonzero(lengths[start:stop] > LONGEST_SENTENCE)
            has_long[np.searchsorted(bounds, long, side="right") - 1] = True
        counts.empty += int(np.sum(sentences == 0))
        counts.one_sentence += int(np.sum(sentences == 1)) if pairs else 0
        counts.long_sentence += int(np.sum(has_long & (sentences > 1)))  # a lone sentence may be of any length
    return counts


def describe_unused(counts: dict[str, DocumentCounts]) -> str:
    """What is not used of each split, in words; "" where all of it is."""
    parts = []
    for split, one in counts.items():
        for number, (count, reason) in enumerate(one.reasons()):
            of = "" if number else f" of {one.documents:,} documents in {split}"
            parts.append(f"{count:,}{of} ({reason})")
    return ", ".join(parts)


def usable_documents(
    lengths: np.ndarray, ends: np.ndarray, begin: int, end: int, split: str, source: str, args: Namespace
) -> DocumentCounts:
    """The counts of documents `begin` to `end`, of which some can be used. See `Family.check_documents`.

    Raises:
        UserError: none can; `source` is named, and what would help.
    """
    counts = count_documents(lengths, ends, begin, end, pairs=not args.bert_no_binary_head)
    if counts.unused == counts.documents:
        raise UserError(
            f"{source} has no document for {split} that BERT can use: {describe_unused({split: counts})}; "
            f"{_way_out(counts, args)}"
        )
    return counts


def _way_out(counts: DocumentCounts, args: Namespace) -> str:
    ways = ["other data" if args.split is None else "another --split"]
    if counts.long_sentence:
        ways.append("data made anew by tools/preprocess_data.py --split-sentences, which cuts long sentences")
    if counts.one_sentence:
        ways.append("data made with --split-sentences and a --sentence-splitter that finds more")
        ways.append("--bert-no-binary-head")
    return f"give {', or '.join(ways)}"
