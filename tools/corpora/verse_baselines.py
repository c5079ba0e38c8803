"""What the verse tasks give away without reading: the majority class, and how many words two verses share."""

import itertools
from collections import Counter
from collections.abc import Sequence

from tools.corpora.verse_tasks import Pair, Passage, overlap, word_set

_BINS = 100


def majority(labels: Sequence[int]) -> float:
    """The share of the commonest label."""
    return max(Counter(labels).values()) / len(labels)


def pair_overlap_accuracy(train: Sequence[Pair], dev: Sequence[Pair], classes: Sequence[int]) -> float:
    """Accuracy on dev of thresholds on the word overlap that are best on train.

    Args:
        classes: the labels by rising overlap.
    """
    counts = [[0] * (_BINS + 1) for _ in classes]
    for pair in train:
        counts[classes.index(pair.label)][_bin(pair)] += 1
    below = [[0, *itertools.accumulate(bins)] for bins in counts]

    def num_right(cuts: tuple[int, ...]) -> int:
        bounds = (0, *cuts, _BINS + 1)
        return sum(sums[bounds[n + 1]] - sums[bounds[n]] for n, sums in enumerate(below))

    cuts = max(itertools.combinations_with_replacement(range(_BINS + 2), len(classes) - 1), key=num_right)
    right = sum(classes[sum(_bin(pair) >= cut for cut in cuts)] == pair.label for pair in dev)
    return right / len(dev)


def _bin(pair: Pair) -> int:
    return round(_BINS * overlap(word_set(pair.kjv.kjv), word_set(pair.web.web)))


def four_way_overlap_accuracy(passages: Sequence[Passage]) -> float:
    """How often the option that shares most words with the question is the right one."""
    right = []
    for passage in passages:
        for question in passage.questions:
            words = word_set(question.verse.kjv)
            scores = [overlap(words, word_set(option.web)) for option in question.options]
            right.append(scores.index(max(scores)) == question.answer)
    return sum(right) / len(right)
