"""What attention's weights do to the values they average, for tokens that are all alike: the recipe's r_eff."""

from dataclasses import dataclass

import numpy as np

from dslm_patches.theory.moments import Value, check_dropout
from dslm_patches.theory.softmax import WeightSums, weight_sums


@dataclass(frozen=True)
class ValueMoments:
    """Second moments of averaged values, means over the positions of a sequence (input variance 1)."""

    variance: float
    covariance: float

    @property
    def correlation(self) -> float:
        """Token correlation of the averaged values."""
        return self.covariance / self.variance


def tilt(logit_variance: Value, squares: Value, hidden_size: float) -> Value:
    """v (1-S)^2 / d: variance of the pull that each query has on the values it averages (derived)."""
    return logit_variance * (1.0 - squares) ** 2 / hidden_size


def averaged_variance(
    key_correlation: Value, sums: WeightSums, logit_variance: Value, hidden_size: float, dropout: float
) -> Value:
    """E[(sum_j a_j m_j x_j)^2] of one feature over s: rho + (1-rho)(S + tilt) + p/(1-p) [S + (1-rho) D v / d].

    Derived in docs/theory.md; tends to rho, the form of arXiv 2403.09635, for long sequences and wide models.

    Args:
        key_correlation: rho, mean correlation between the keys seen.
        sums: over the weights; S = squares, D = squares_lean.
        logit_variance: v, of a logit across the keys.
        dropout: p, on the weights.
    """
    own = 1.0 - key_correlation
    squares = sums.squares
    dropped = dropout / (1.0 - dropout) * (squares + sums.squares_lean * own * logit_variance / hidden_size)
    return key_correlation + own * (squares + tilt(logit_variance, squares, hidden_size)) + dropped


def averaged_values(
    correlation: float,
    seq_length: int,
    hidden_size: float,
    *,
    causal: bool,
    attention_dropout: float,
    logit_scale: float = 1.0,
) -> ValueMoments:
    """Variance and token covariance of attention's weighted average of unit-variance values, all tokens alike.

    Under a causal mask these are means over positions; `theory.attention` resolves the positions.

    Args:
        correlation: token correlation r of the attention's input.
        seq_length: tokens a sequence.
        hidden_size: features of the attention's input.
        causal: each token sees itself and those before it only.
        attention_dropout: probability p of dropping an attention weight.
        logit_scale: kappa, the variance of a logit between independent tokens; 1 under DeepScaleLM.

    Raises:
        ValueError: a correlation outside [0, 1] or a dropout outside [0, 1).
    """
    if not 0.0 <= correlation <= 1.0:
        raise ValueError(f"token correlation must lie in [0, 1], not {correlation}")
    check_dropout(attention_dropout)
    # Queries see keys whose shared part cancels in the softmax: logits vary by (1-r) only.
    v = (1.0 - correlation) * logit_scale
    keys: Value = np.arange(1.0, seq_length + 1.0) if causal else float(seq_length)
    sums = weight_sums(keys, v)
    if causal and seq_length > 1:
        later = np.arange(2.0, seq_length + 1.0)
        overlap = float(2.0 * ((later - 1.0) / later).sum() / (seq_length * (seq_length - 1.0)))
    else:
        overlap = 1.0 / seq_length
    pull = float(np.mean(tilt(v, sums.squares, hidden_size)))
    return ValueMoments(
        variance=float(np.mean(averaged_variance(correlation, sums, v, hidden_size, attention_dropout))),
        covariance=correlation + (1.0 - correlation) * (overlap + correlation * pull),
    )
