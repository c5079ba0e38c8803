"""A batch of random tokens that follow Zipf's law, for measurements without data."""

from argparse import Namespace

import torch
from torch import Tensor


def random_batch(args: Namespace, vocab_size: int) -> dict[str, Tensor]:
    """One micro-batch with the keys of the model's dataset, a function of args.seed.

    BERT: two segments that part at a uniform position, args.mask_prob of the tokens to predict. GPT: the next token.
    """
    generator = torch.Generator().manual_seed(args.seed)
    size, length = args.micro_batch_size, args.seq_length
    frequencies = 1.0 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
    draws = torch.multinomial(frequencies, size * (length + 1), replacement=True, generator=generator)
    tokens = draws.view(size, length + 1)
    positions = torch.arange(length).expand(size, length)
    if args.model == "gpt":
        return {
            "tokens": tokens[:, :-1].contiguous(),
            "labels": tokens[:, 1:].contiguous(),
            "loss_mask": torch.ones(size, length),
            "position_ids": positions,
        }
    boundary = torch.rand(size, 1, generator=generator) * length
    predicted = torch.rand(size, length, generator=generator) < args.mask_prob
    return {
        "text": tokens[:, :-1].contiguous(),
        "types": (positions >= boundary).long(),
        "labels": torch.where(predicted, tokens[:, 1:], -1),
        "is_random": torch.randint(2, (size,), generator=generator),
        "loss_mask": predicted.long(),
        "padding_mask": torch.ones(size, length, dtype=torch.long),
    }
