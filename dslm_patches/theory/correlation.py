"""How token correlation travels up a stack whose stream and branches are held at unit variance.

This is the recurrence DeepScaleLM needs for its value and output weights (arXiv 2403.09635): each sublayer
mixes the stream's correlation with its branch's, r' = lambda^2 r + beta^2 r_branch.
"""

from dataclasses import dataclass

from dslm_patches.theory.averaging import ValueMoments, averaged_values
from dslm_patches.theory.ffn import balanced_ffn_variance, ffn_correlation


@dataclass(frozen=True)
class UnitVarianceStack:
    """A stack of layers with unit-variance branches, by the numbers its correlation depends on.

    Attributes:
        input_correlation: token correlation of the embeddings before dropout.
        context_correlation: token correlation of the encoder's output, for layers with cross-attention.
    """

    num_layers: int
    hidden_size: int
    seq_length: int
    causal: bool
    activation: str
    gated: bool
    ffn_ratio: float
    hidden_dropout: float
    attention_dropout: float
    lambda_sq: float
    beta_sq: float
    input_correlation: float
    context_correlation: float | None = None


@dataclass(frozen=True)
class LayerCorrelation:
    """One layer: token correlation at its input and output, and the moments of its averaged values."""

    input: float
    output: float
    self_attention: ValueMoments
    cross_attention: ValueMoments | None


def correlation_profile(stack: UnitVarianceStack) -> list[LayerCorrelation]:
    """Token correlation layer by layer, from the embeddings up.

    Raises:
        ValueError: a correlation or dropout outside its domain.
    """
    keep = 1.0 - stack.hidden_dropout
    ffn_variance = balanced_ffn_variance(stack.activation, stack.gated, stack.ffn_ratio, keep)
    r = stack.input_correlation * keep
    profile = []
    for _ in range(stack.num_layers):
        entering = r
        own = _averaged(stack, r, stack.causal)
        r = stack.lambda_sq * r + stack.beta_sq * keep * own.correlation
        other = None
        if stack.context_correlation is not None:
            other = _averaged(stack, stack.context_correlation, False)
            r = stack.lambda_sq * r + stack.beta_sq * keep * other.correlation
        branch = ffn_correlation(stack.activation, stack.gated, ffn_variance, r)
        r = stack.lambda_sq * r + stack.beta_sq * keep * branch
        profile.append(LayerCorrelation(entering, r, own, other))
    return profile


def _averaged(stack: UnitVarianceStack, correlation: float, causal: bool) -> ValueMoments:
    return averaged_values(
        correlation, stack.seq_length, stack.hidden_size, causal=causal, attention_dropout=stack.attention_dropout
    )
