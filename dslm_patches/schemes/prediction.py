"""What the theory says of a model under a depth scheme: every layer's variance, correlation and gradient variance."""

from dslm_patches.errors import UserError
from dslm_patches.schemes.base import DepthScheme, LayerPrescription, WeightRole
from dslm_patches.theory.embeddings import pair_scatter
from dslm_patches.theory.moments import Moments, warn_outside
from dslm_patches.theory.shape import ModelShape
from dslm_patches.theory.stack import LayerWeights, StackProfile, stack_profile


def predict(
    shape: ModelShape, scheme: DepthScheme, *, top_gradient: Moments | None = None, norm_epsilon: float = 1e-5
) -> StackProfile:
    """The profile of a BERT or GPT at initialisation, from the embeddings up and from the last layer down.

    Args:
        top_gradient: moments of the gradient at the last layer's output; variance 1, uncorrelated, by default, so
            that the profile's gradients are ratios to the last layer's.

    Warns:
        OutsideTheoryWarning: where predictions were measured to be off by more than 10 %.

    Raises:
        UserError: a correlation, dropout or activation outside the theory's domain, or cross-attention, for which
            the theory's stack has no component yet.
    """
    if shape.context_correlation is not None:
        raise UserError("the prediction covers encoders and decoders without cross-attention")
    if shape.gated or scheme.norm_placement == "post":
        warn_outside(
            "gradients of gated FFNs and Post-LN models were measured 5 to 20 % above the prediction, and those of "
            "deep Post-LN models without residual scaling scatter far more from draw to draw (docs/theory.md)"
        )
    tables = shape.embedding_tables * scheme.std(WeightRole.WORD_EMBEDDING) ** 2
    keep = 1.0 - shape.hidden_dropout
    scatter = tables**2 * pair_scatter(shape.input_correlation, shape.embedding_tables)
    embeddings = Moments(tables / keep, tables * shape.input_correlation, pair_scatter=scatter)
    return stack_profile(
        shape,
        [_weights(layer) for layer in scheme.layers],
        embeddings,
        top_gradient,
        post_norm=scheme.norm_placement == "post",
        norm_epsilon=norm_epsilon,
    )


def prediction_band(shape: ModelShape, scheme: DepthScheme) -> dict[str, float]:
    """How far one model may lie from its prediction: half-widths, relative for variances, absolute for correlations.

    The error of the prediction of the mean over draws, as measured in docs/theory.md, and the scatter of one draw,
    which falls as 1/sqrt(width) from 10 % of the variance at 256 (docs/results.md).
    """
    draw = 0.1 * (256.0 / shape.hidden_size) ** 0.5
    hard = shape.gated or scheme.norm_placement == "post"
    return {
        "variance_band": 0.05 + draw,
        "gradient_band": (0.16 if hard else 0.1) + draw,
        "correlation_band": 0.04,
    }


def _weights(layer: LayerPrescription) -> LayerWeights:
    def variance(role: WeightRole) -> float:
        return layer.std[role] ** 2

    return LayerWeights(
        query=variance(WeightRole.QUERY),
        key=variance(WeightRole.KEY),
        value=variance(WeightRole.VALUE),
        output=variance(WeightRole.ATTENTION_OUTPUT),
        ffn_up=variance(WeightRole.FFN_UP),
        ffn_down=variance(WeightRole.FFN_DOWN),
        skip_scale=layer.skip_scale,
        branch_scale=layer.branch_scale,
    )
