"""Sentences longer than BERT's sampling takes, cut between words."""

from array import array
from collections.abc import Container

LONGEST_SENTENCE = 512
"""Tokens. megatron-core's BERT and T5 sampling (LONG_SENTENCE_LEN of its datasets/helpers.cpp) leaves out documents of
several sentences with a longer one."""


def cut_between_words(sentence: bytes, typecode: str, inside: Container[int]) -> list[bytes]:
    """The sentence in as few pieces of at most LONGEST_SENTENCE tokens as words allow, about equally long.

    Args:
        sentence: tokens as machine integers.
        typecode: `array`'s, of a token.
        inside: tokens that no piece may begin with; fewer of them in a row than half of LONGEST_SENTENCE.
    """
    tokens = array(typecode, sentence)
    pieces, start = [], 0
    while (left := len(tokens) - start) > LONGEST_SENTENCE:
        num_pieces = -(-left // LONGEST_SENTENCE)
        stop = start + -(-left // num_pieces)
        while tokens[stop] in inside:
            stop -= 1
        pieces.append(tokens[start:stop].tobytes())
        start = stop
    return [*pieces, tokens[start:].tobytes()]
