"""The FFN as one block: its gain, what it does to token correlation, and the weights that balance it."""

import math
from typing import NamedTuple

from dslm_patches.theory.activations import product_moment, second_moment


class FfnActivation(NamedTuple):
    """What an FFN computes between its linears: phi(up x), or phi(gate x) up x where it is gated.

    Attributes:
        base: phi, one of `activations.ACTIVATIONS`.
    """

    base: str
    gated: bool


FFN_ACTIVATIONS = {
    "gelu": FfnActivation("gelu", gated=False),
    "relu": FfnActivation("relu", gated=False),
    "silu": FfnActivation("silu", gated=False),
    "geglu": FfnActivation("gelu", gated=True),
    "swiglu": FfnActivation("silu", gated=True),
}
"""The activations a model may be built with, by name."""


def ffn_gain(activation: str, gated: bool, variance: float) -> float:
    """Second moment of one hidden unit of an FFN whose pre-activations have the given variance.

    Plain FFN: E[phi(v)^2]. Gated (u phi(v), u and v independent and of equal variance s): s E[phi(v)^2].
    """
    gain = second_moment(activation, variance)
    return variance * gain if gated else gain


def ffn_correlation(activation: str, gated: bool, variance: float, correlation: float) -> float:
    """Token correlation after an FFN (before dropout) whose input tokens have the given correlation.

    For a gated unit E[u u'] = r s multiplies the product moment, so the correlation gains a factor r.
    """
    ratio = float(product_moment(activation, variance, correlation)) / second_moment(activation, variance)
    return correlation * ratio if gated else ratio


def balanced_ffn_variance(activation: str, gated: bool, ffn_ratio: float, output_variance: float) -> float:
    """The pre-activation variance s at which an FFN with equal up and down gains has a given output variance.

    With unit-variance input, d w1^2 = d w2^2 = s, the output variance is ffn_ratio * s * ffn_gain(s): solved
    for s by bisection. ReLU with ffn_ratio 4 gives s = sqrt(output_variance / 2), the recipe of arXiv 2403.09635.

    Args:
        ffn_ratio: FFN width over hidden size.
        output_variance: wanted output variance before dropout, positive.

    Raises:
        ValueError: unknown activation, or a ratio or variance that is not positive.
    """
    if not (ffn_ratio > 0.0 and output_variance > 0.0):
        raise ValueError(f"FFN ratio and output variance must be positive, not {ffn_ratio} and {output_variance}")
    if activation == "relu" and not gated:
        return math.sqrt(2.0 * output_variance / ffn_ratio)
    low, high = 1e-9, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        if ffn_ratio * middle * ffn_gain(activation, gated, middle) < output_variance:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)
