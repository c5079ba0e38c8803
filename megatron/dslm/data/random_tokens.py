"""Random tokens that follow Zipf's law, for measurements without data."""

import torch
from torch import Tensor


def zipf_tokens(size: int, length: int, vocab_size: int, generator: torch.Generator) -> Tensor:
    """Token ids [size, length], the i-th of the vocabulary with a frequency proportional to 1 / i."""
    frequencies = 1.0 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
    return torch.multinomial(frequencies, size * length, replacement=True, generator=generator).view(size, length)
