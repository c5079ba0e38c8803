"""What attention at initialisation does to the variance and correlation of the values it averages.

Values of unit variance and token correlation r, averaged with weights a_tj (softmax over unit-variance
queries and keys, then dropout p on the weights):
    E[(sum_j a_tj v_j)^2] = r + S_t (1/(1-p) - r),  S_t = E[sum_j a_tj^2] before dropout   (derived)
    E[(sum_j a_tj v_j)(sum_j a_uj v_j)] = r + (1-r) E[sum_j a_tj a_uj]                     (derived)
As the sequence grows both tend to r, which is the form arXiv 2403.09635 uses.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ValueMoments:
    """Second moments of averaged values, means over the positions of a sequence (input variance 1)."""

    variance: float
    covariance: float

    @property
    def correlation(self) -> float:
        """Token correlation of the averaged values."""
        return self.covariance / self.variance


def concentration(keys: np.ndarray, logit_variance: float) -> np.ndarray:
    """S_t = E[sum_j a_j^2] of a softmax over `keys` independent Gaussian logits (derived; tends to e^v / keys).

    1 / (1 + (n-1) exp(-v (n-1)/n)): exact for one key and for v = 0, and within 11 % of simulation for v <= 1.
    """
    return 1.0 / (1.0 + (keys - 1.0) * np.exp(-logit_variance * (keys - 1.0) / keys))


def averaged_values(
    correlation: float, seq_length: float, *, causal: bool, attention_dropout: float, logit_scale: float = 1.0
) -> ValueMoments:
    """Variance and token covariance of attention's weighted average of unit-variance values.

    Args:
        correlation: token correlation r of the attention's input.
        seq_length: tokens a sequence; float("inf") gives the long-sequence limit, r and r.
        causal: each token sees itself and those before it only.
        attention_dropout: probability p of dropping an attention weight.
        logit_scale: product of the variances of query and key, 1 under DeepScaleLM.

    Raises:
        ValueError: a correlation outside [0, 1] or a dropout outside [0, 1).
    """
    if not 0.0 <= correlation <= 1.0:
        raise ValueError(f"token correlation must lie in [0, 1], not {correlation}")
    if not 0.0 <= attention_dropout < 1.0:
        raise ValueError(f"attention dropout must lie in [0, 1), not {attention_dropout}")
    if np.isinf(seq_length):
        return ValueMoments(correlation, correlation)
    length = int(seq_length)
    # Queries see keys whose shared part cancels in the softmax: logits vary by (1-r) only.
    logit_variance = (1.0 - correlation) * logit_scale
    keys = np.arange(1, length + 1) if causal else np.array([length])
    squares = concentration(keys.astype(np.float64), logit_variance).mean()
    if causal and length > 1:
        later = np.arange(2, length + 1)
        overlap = float(2.0 * ((later - 1.0) / later).sum() / (length * (length - 1.0)))
    else:
        overlap = 1.0 / length
    return ValueMoments(
        variance=float(correlation + squares * (1.0 / (1.0 - attention_dropout) - correlation)),
        covariance=float(correlation + (1.0 - correlation) * overlap),
    )
