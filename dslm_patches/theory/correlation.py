"""How token correlation travels up a stack whose stream and branches are held at unit variance.

This is the recurrence DeepScaleLM needs for its value and output weights (arXiv 2403.09635): each sublayer
mixes the stream's correlation with its branch's, r' = lambda^2 r + beta^2 r_branch.
"""

from dataclasses import dataclass

from dslm_patches.theory.averaging import ValueMoments, averaged_values
from dslm_patches.theory.ffn import balanced_ffn_variance, ffn_correlation
from dslm_patches.theory.shape import ModelShape


@dataclass(frozen=True)
class LayerCorrelation:
    """One layer: token correlation at its input and output, and the moments of its averaged values."""

    input: float
    output: float
    self_attention: ValueMoments
    cross_attention: ValueMoments | None


def correlation_profile(shape: ModelShape, lambda_sq: float, beta_sq: float) -> list[LayerCorrelation]:
    """Token correlation layer by layer, from the embeddings up, of a stack of layers with unit-variance branches.

    Args:
        lambda_sq, beta_sq: shares of the skip and of the branch in each residual add's variance.

    Raises:
        ValueError: a correlation or dropout outside its domain.
    """
    keep = 1.0 - shape.hidden_dropout
    ffn_variance = balanced_ffn_variance(shape.activation, shape.gated, shape.ffn_ratio, keep)
    r = shape.input_correlation * keep
    profile = []
    for _ in range(shape.num_layers):
        entering = r
        own = _averaged(shape, r, shape.causal)
        r = lambda_sq * r + beta_sq * keep * own.correlation
        other = None
        if shape.context_correlation is not None:
            other = _averaged(shape, shape.context_correlation, False)
            r = lambda_sq * r + beta_sq * keep * other.correlation
        branch = ffn_correlation(shape.activation, shape.gated, ffn_variance, r)
        r = lambda_sq * r + beta_sq * keep * branch
        profile.append(LayerCorrelation(entering, r, own, other))
    return profile


def _averaged(shape: ModelShape, correlation: float, causal: bool) -> ValueMoments:
    return averaged_values(
        correlation, shape.seq_length, shape.hidden_size, causal=causal, attention_dropout=shape.attention_dropout
    )
