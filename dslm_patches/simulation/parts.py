"""Second moments of a signal that is a weighted sum of parts: one simulation serves every choice of the weights.

A signal of mean m, variance s and correlation r is m 1 + sqrt(s (r + (1-r)/L)) c + sqrt(s (1-r)) (e_t - mean(e)): the
mean over its L tokens has variance s (r + (1-r)/L), which is not negative from r = -1/(L-1) on. What a linear map makes
of it is the same sum of the mapped parts. So the moments of all m, s and r follow exactly from the products of
the parts of one set of draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dslm_patches.simulation.estimates import Array, Estimate, mean_estimate, variance_estimate
from dslm_patches.theory.moments import Value


@dataclass(frozen=True)
class PartMoments:
    """Per batch: means of the parts [B, K], products of the same token [B, K, K] and of different tokens [B, K, K]."""

    mean: Array
    own: Array
    pair: Array

    def mean_of(self, weights: Array) -> Estimate:
        """Mean of the signal with part weights [n, K]."""
        return mean_estimate(self.mean @ weights.T)

    def variance_of(self, weights: Array) -> Estimate:
        """Variance of one feature, the mean subtracted."""
        return variance_estimate(self.mean @ weights.T, self._form(self.own, weights))

    def covariance_of(self, weights: Array) -> Estimate:
        """Token covariance, the mean subtracted."""
        return variance_estimate(self.mean @ weights.T, self._form(self.pair, weights))

    def second_moment_of(self, weights: Array) -> Estimate:
        """Mean square: the variance of a signal whose mean is known to be 0."""
        return mean_estimate(self._form(self.own, weights))

    def pair_moment_of(self, weights: Array) -> Estimate:
        """Mean product of different tokens: the covariance of a signal whose mean is known to be 0."""
        return mean_estimate(self._form(self.pair, weights))

    @staticmethod
    def _form(products: Array, weights: Array) -> Array:
        return np.einsum("nk,bkl,nl->bn", weights, products, weights, optimize=True)


def token_weights(variance: Value, correlation: Value, length: int) -> Array:
    """Weights [..., 2] of the parts c and e_t - mean(e) of `length` tokens."""
    shared = np.maximum(correlation + (1.0 - correlation) / length, 0.0)
    return np.sqrt(np.stack([variance * shared, variance * (1.0 - correlation)], axis=-1))


def signal_weights(mean: Array, variance: Array, correlation: Array, length: int) -> Array:
    """Weights [n, 3] of the parts 1, c and e_t - mean(e)."""
    return np.concatenate([mean[:, None], token_weights(variance, correlation, length)], axis=-1)


def part_products(parts: Sequence[Tensor]) -> tuple[Array, Array, Array]:
    """Mean, own and pair products of one batch of parts [F..., L or 1, ...] with tokens along dimension -2.

    Returns:
        Arrays [K], [K, K] and [K, K], float64, means over all other dimensions.
    """
    count = len(parts)
    means = np.array([part.mean(dtype=torch.float64).item() for part in parts])
    own, pair = np.empty((count, count)), np.empty((count, count))
    for i in range(count):
        for j in range(i, count):
            same, different = own_and_pair(parts[i], parts[j])
            own[i, j] = own[j, i] = same
            pair[i, j] = pair[j, i] = different
    return means, own, pair


def under_sign_flips(products: tuple[Array, Array, Array], *, fixed: int) -> tuple[Array, Array, Array]:
    """The same averaged over independent flips of the parts' signs, as likely as the signs drawn: odd products cancel.

    Args:
        fixed: the first parts, which do not flip.
    """
    mean, own, pair = products
    mean[fixed:] = 0.0
    keep = np.eye(len(mean), dtype=bool)
    keep[:fixed, :fixed] = True
    return mean, own * keep, pair * keep


def stack_batches(batches: Sequence[tuple[Array, Array, Array]]) -> PartMoments:
    """`part_products` of independent batches, together."""
    mean, own, pair = (np.stack(values) for values in zip(*batches, strict=True))
    return PartMoments(mean, own, pair)


def own_and_pair(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean of a_t b_t and mean of a_t b_u over different tokens, tokens along dimension -2.

    From sums, in O(L): (sum_t a_t sum_u b_u - sum_t a_t b_t) / (L (L-1)). A part with one token is shared by all.
    """
    if a.shape[-2] == 1 or b.shape[-2] == 1:
        shared = (a.mean(-2, dtype=torch.float64) * b.mean(-2, dtype=torch.float64)).mean().item()
        return shared, shared
    length = a.shape[-2]
    same = (a * b).mean(dtype=torch.float64).item()
    total = (a.sum(-2, dtype=torch.float64) * b.sum(-2, dtype=torch.float64)).mean().item()
    return same, (total / length - same) / (length - 1.0)
