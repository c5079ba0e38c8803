"""Token correlation of the summed embedding tables (arXiv 2403.09635, section 1.1 of the method).

Two tokens of a sequence share a table's vector with the probability that they have the same index, so the
correlation of the sum of n_e tables of equal variance is the mean of those probabilities over the tables.
"""

import numpy as np

SEGMENT_MATCH = 2.0 / 3.0
"""P(two tokens lie in the same segment) when the boundary is uniform: E[u^2 + (1-u)^2] (derived)."""


def zipf_match_probability(vocab_size: int) -> float:
    """S = sum_i p_i^2 for token frequencies that follow Zipf's law, p_i proportional to 1/i.

    Raises:
        ValueError: vocab_size below 1.
    """
    if vocab_size < 1:
        raise ValueError(f"a vocabulary has at least one token, not {vocab_size}")
    inverse_rank = 1.0 / np.arange(1, vocab_size + 1, dtype=np.float64)
    return float((inverse_rank**2).sum() / inverse_rank.sum() ** 2)


def embedding_tables(*, learned_positions: bool, segments: bool) -> int:
    """Tables summed at the input: the word table, and those of positions and segments where there are any."""
    return 1 + int(learned_positions) + int(segments)


def input_correlation(
    vocab_size: int, *, learned_positions: bool, segments: bool, match_probability: float | None = None
) -> float:
    """Token correlation r0 of the summed embeddings, before dropout.

    BERT (word + position + segment, 30,522 tokens): 0.2268; GPT with learned positions: 0.006-0.007.
    Position vectors never match; segments match with probability 2/3.

    Args:
        vocab_size: tokens of the vocabulary, for Zipf's law.
        learned_positions: a position table is added.
        segments: a token-type table is added.
        match_probability: sum of squared token frequencies of the real data, in place of Zipf's law.
    """
    same_word = zipf_match_probability(vocab_size) if match_probability is None else match_probability
    tables = embedding_tables(learned_positions=learned_positions, segments=segments)
    return (same_word + (SEGMENT_MATCH if segments else 0.0)) / tables


def pair_scatter(input_correlation: float, embedding_tables: int) -> float:
    """Variance over pairs of tokens of their correlation, before dropout (derived).

    A pair has correlation 1/n_e for each table whose vector it shares: the word with a probability that follows from
    the mean correlation r0, and, with three tables, the segment, whose share u^2 + (1-u)^2 of one sequence leaves
    E[m (1-m)] = 1/5 of scatter within sequences.
    """
    segments = embedding_tables == 3
    same_word = min(1.0, max(0.0, input_correlation * embedding_tables - (SEGMENT_MATCH if segments else 0.0)))
    return (same_word * (1.0 - same_word) + (0.2 if segments else 0.0)) / embedding_tables**2
