"""Two softmaxes over the same keys whose logits are correlated: how much of their weights and slopes they share."""

import math
from dataclasses import dataclass

import numpy as np

from dslm_patches.theory.moments import Value
from dslm_patches.theory.softmax import WeightSums


@dataclass(frozen=True)
class PairSums:
    """Expected sums over the weights a, b of two softmaxes and their slopes P, P', rho the correlation of their logits.

    Attributes:
        shared: O = E[sum_j a_j b_j].
        slopes: U = E[tr P P'].
        pulls: E[rho tr P P'], for a rho that scatters.
    """

    shared: Value
    slopes: Value
    pulls: Value


def pair_sums(
    keys: tuple[Value, Value],
    sums: tuple[WeightSums, WeightSums],
    logit_variance: Value,
    correlation: Value,
    scatter: float,
) -> PairSums:
    """O and U along the correlation of two softmaxes' logits (derived in docs/theory.md).

    O is a power series in rho with dO/drho = v U. At rho = 0, where the derivatives of both average independently, U
    and dU/drho are exact; at rho = 1, where both are one, O = S and U = T; between them U is a polynomial.

    Args:
        keys: n and m, numbers of keys of the one that sees fewer and of the one that sees those and more.
        sums: of the weights of both.
        logit_variance: v, across the n keys.
        correlation: r, mean of rho.
        scatter: variance of rho at r = 0; (1-r^2)^2 of it is left at r, as of any sample correlation.
    """
    (n, m), (few, many), v = keys, sums, logit_variance
    share = n / m
    first = (1.0 - few.squares) * (1.0 - many.squares) / np.maximum(m - 1.0, 1.0)
    second = v * m * few.mean_curvature * many.mean_curvature / np.maximum((m - 1.0) * (m - 2.0), 1.0)
    # m O and m U: between m = n and m far above n along the share.
    last = (share * n * few.moving_spread + (1.0 - share) * few.spread_among_many) / m
    together = (share * n * few.squares + (1.0 - share) * few.among_many) / m
    mean = np.where(v > 1e-4, (together - 1.0 / m) / np.maximum(v, 1e-4), last)
    # U = first + second rho + third rho^2 + fourth |rho|^3, with U(1) = last and the mean of U over [0, 1] from O(1)
    end, area = last - first - second, mean - first - 0.5 * second
    third, fourth = 12.0 * area - 3.0 * end, 4.0 * end - 12.0 * area

    def at(rho: Value) -> PairSums:
        size = np.abs(rho)
        slopes = first + rho * second + rho**2 * (third + size * fourth)
        shared = 1.0 / m + v * rho * (first + rho * second / 2.0 + rho**2 * (third / 3.0 + size * fourth / 4.0))
        return PairSums(shared, slopes, rho * slopes)

    step = math.sqrt(scatter) * (1.0 - np.minimum(np.square(correlation), 1.0))
    above, below = at(correlation + step), at(correlation - step)
    return PairSums(
        0.5 * (above.shared + below.shared), 0.5 * (above.slopes + below.slopes), 0.5 * (above.pulls + below.pulls)
    )
