"""Sums over one tensor on one rank, such that the sums of the parts of a batch add up to those of the whole."""

import torch
from torch import Tensor

FIELDS = ("count", "total", "squares", "token_squares", "count_tokens", "non_finite")
"""What a row of sums holds, in float64, over the elements x of all sequences of T tokens:

count n, total sum x, squares sum x^2, token_squares sum |sum_t x_t|^2 over sequences (0 where there are no tokens to
correlate), count_tokens n T, and the number of elements that are not finite.
"""
TOKEN_SQUARES = FIELDS.index("token_squares")
_EXPONENT = 0x7F800000
"""The bits of an fp32 number that hold its exponent."""


def token_sums(x: Tensor, shards: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of hidden states, the largest absolute value, and sums over the tokens.

    Sums are taken around the mean of the first token, so that fp32 rounding is relative to the deviations and not to
    the mean, and after a division by a power of two, so that no square leaves fp32's range; those of a row of features
    in fp32, and over rows in float64. fp32 norms of 8 M elements at once were measured to be off by 5e-4.

    Args:
        x: [s, b, h].
        shards: ranks that share the tokens of a sequence.

    Returns:
        A row of FIELDS, its token_squares left 0; the maximum, NaN where x holds one; token sums [b, h], float64.
    """
    centred, power, largest = _scaled(x)
    center = centred[:1].mean().nan_to_num(0.0, 0.0, 0.0)
    centred.sub_(center)
    of_tokens = centred.sum(dim=0)
    row = _row(x.numel(), center, of_tokens.sum(dtype=torch.float64), centred, power)
    row[4] = x.numel() * x.size(0) * shards
    row[5] = _non_finite(centred)
    return row, largest, (of_tokens.double() + x.size(0) * center.double()) * power


def element_sums(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """A row of FIELDS and the maximum of elements that are no tokens.

    Args:
        x: of any shape.
        counted: True where an element counts, broadcast over x; None where all do. What does not count is set to 0
            rather than picked out, which would hold a list of places and wait for the device.
    """
    if counted is None:
        count = torch.full((), x.numel(), dtype=torch.float64, device=x.device)
    else:
        x = torch.where(counted, x, 0.0)
        count = counted.sum() * (x.numel() / counted.numel())
    centred, power, largest = _scaled(x)
    center = (centred.sum(dim=-1).sum(dtype=torch.float64) / count).float().nan_to_num(0.0, 0.0, 0.0)
    centred.sub_(center)
    if counted is not None:
        centred = torch.where(counted, centred, 0.0)
    row = _row(count, center, centred.sum(dim=-1).sum(dtype=torch.float64), centred, power)
    row[5] = _non_finite(centred)
    return row, largest


def _scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A copy in fp32 divided by a power of two that brings it within 2; that power and the maximum, in float64."""
    low, high = torch.aminmax(x)
    largest = torch.maximum(-low, high).float()
    # Its exponent's bits alone; of NaN and infinity they are all set, which is infinity, and the limit then.
    power = (largest.view(torch.int32) & _EXPONENT).view(torch.float32).clamp(2.0**-100, 2.0**100)
    return x.float() * power.reciprocal(), power.double(), largest.double()


def _row(count: Tensor | int, center: Tensor, total: Tensor, centred: Tensor, power: Tensor) -> Tensor:
    """Count, sum and squares of elements from the sum of their deviations and the deviations themselves."""
    center = center.double()
    row = center.new_zeros(len(FIELDS))
    row[0] = count
    row[1] = (count * center + total) * power
    squares = torch.linalg.vector_norm(centred, dim=-1).double().square().sum()
    row[2] = (squares + 2.0 * center * total + count * center.square()) * power.square()
    return row


def _non_finite(x: Tensor) -> Tensor:
    """How many elements are not finite; overwrites them."""
    ones = x.sub_(x).ne_(0.0)  # x - x is 0 for a finite x and NaN otherwise
    return ones.sum(dim=-1).sum(dtype=torch.float64)
