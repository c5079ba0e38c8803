"""What tables of tokens and of pairs give on held-out text: losses that a model has to beat to use its context."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_TOKENS = 10_000_000
"""Counted of each split, evenly spread."""
LARGEST_VOCABULARY = 8192
"""Of pairs: above it most pairs of the held-out text are new, and the table says little."""
PRIOR = 20.0
"""Weight of the unigrams in each row of the pairs' table, in tokens."""
_BLOCKS = 64

Tokens = NDArray[np.integer]


class Share(NamedTuple):
    """Tokens that lie one after the other, and how much of the split is to be theirs."""

    tokens: Tokens
    weight: float


def evenly_spread(tokens: Tokens, most: int) -> Tokens:
    """All of the tokens [n], or about `most` of them in blocks spread over the whole."""
    if len(tokens) <= most:
        return np.asarray(tokens)
    length = max(1, most // _BLOCKS)
    starts = np.linspace(0, len(tokens) - length, _BLOCKS).astype(np.int64)
    return np.concatenate([tokens[start : start + length] for start in starts])


def unigram_cross_entropy(train: Sequence[Share], valid: Sequence[Share], vocab_size: int) -> float:
    """Nats a token of the valid text, by the train text's frequencies with one more of each token of the vocabulary."""
    probabilities = _unigrams(train, vocab_size)
    seen = _counts(valid, vocab_size)
    return float(-(seen * np.log(probabilities)).sum() / seen.sum())


def bigram_cross_entropy(train: Sequence[Share], valid: Sequence[Share], vocab_size: int) -> float:
    """Nats a token of the valid text by the one before it: the train text's pairs, smoothed by `PRIOR` unigrams a row.

    p(b | a) = (n(a, b) + PRIOR p(b)) / (n(a) + PRIOR), a Dirichlet prior (MacKay and Peto, 1995).
    """
    unigrams = _unigrams(train, vocab_size)
    pairs, counts = _pairs(train, vocab_size)
    rows = np.bincount(pairs // vocab_size, counts, vocab_size)
    asked, seen = _pairs(valid, vocab_size)
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    found = np.where(pairs[place] == asked, counts[place], 0.0)
    before, after = np.divmod(asked, vocab_size)
    probabilities = (found + PRIOR * unigrams[after]) / (rows[before] + PRIOR)
    return float(-(seen * np.log(probabilities)).sum() / seen.sum())


def _scales(shares: Sequence[Share]) -> list[float]:
    """Factors on the counts of each share, which keep their sum."""
    total = sum(len(one.tokens) for one in shares)
    weights = sum(one.weight for one in shares)
    return [total * one.weight / weights / len(one.tokens) for one in shares]


def _counts(shares: Sequence[Share], vocab_size: int) -> NDArray[np.float64]:
    return np.sum(
        [
            scale * np.bincount(one.tokens, minlength=vocab_size)
            for one, scale in zip(shares, _scales(shares), strict=True)
        ],
        axis=0,
    )


def _unigrams(shares: Sequence[Share], vocab_size: int) -> NDArray[np.float64]:
    counts = _counts(shares, vocab_size) + 1.0
    probabilities: NDArray[np.float64] = counts / counts.sum()
    return probabilities


def _pairs(shares: Sequence[Share], vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The pairs there are, as first * vocab_size + second in rising order, and how often each comes."""
    codes, weights = [], []
    for one, scale in zip(shares, _scales(shares), strict=True):
        tokens = one.tokens.astype(np.int64)
        code, count = np.unique(tokens[:-1] * vocab_size + tokens[1:], return_counts=True)
        codes.append(code)
        weights.append(scale * count)
    pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
    return pairs, np.bincount(place, np.concatenate(weights)).astype(np.float64)
