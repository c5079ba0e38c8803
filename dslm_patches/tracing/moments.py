"""Sums over one tensor on one rank, such that the sums of the parts of a batch add up to those of the whole."""

import torch
from torch import Tensor

FIELDS = ("count", "total", "squares", "token_squares", "count_tokens", "non_finite")
"""What a row of sums holds, in float64, over the elements x of all sequences of T tokens:

count n, total sum x, squares sum x^2, token_squares sum |sum_t x_t|^2 over sequences (0 where there are no tokens to
correlate), count_tokens n T, and the number of elements that are not finite.
"""
TOKEN_SQUARES = FIELDS.index("token_squares")


def token_sums(x: Tensor) -> Tensor:
    """Sum over the tokens of each sequence and feature, [b, h] in float64, of hidden states [s, b, h]."""
    return x.sum(dim=0, dtype=torch.float64)


def element_sums(x: Tensor, total: Tensor, tokens: int) -> Tensor:
    """A row of sums of x, its token_squares left 0.

    The squares are summed around the mean, where rounding is relative to the deviation and not to the mean, and in
    float64: fp32 norms of 8 M elements were measured to be off by 5e-4.

    Args:
        x: of any shape.
        total: float64, the sum of x.
        tokens: T of the whole sequence; 0 where x has no tokens to correlate.
    """
    count = x.numel()
    center = (total / count).float()
    deviation = torch.linalg.vector_norm(torch.sub(x.float(), center), dtype=torch.float64)
    center = center.double()
    squares = deviation.square() + 2.0 * center * total - count * center.square()
    row = x.new_tensor([count, 0.0, 0.0, 0.0, count * tokens, 0.0], dtype=torch.float64)
    row[1], row[2] = total, squares
    row[5] = torch.count_nonzero(x - x)  # x - x is 0 for a finite x and NaN otherwise
    return row


def absolute_maximum(x: Tensor) -> Tensor:
    """The largest absolute value, NaN where x holds one; float64."""
    low, high = torch.aminmax(x)
    return torch.maximum(-low, high).double()
