"""DeepScaleLM (arXiv 2403.09635): unit variance at every depth, by init and residual scaling."""

import math

from dslm_patches.schemes import scheme
from dslm_patches.schemes.base import DepthScheme, LayerPrescription, OptionError, SchemeOptions, WeightRole
from dslm_patches.theory.averaging import ValueMoments
from dslm_patches.theory.correlation import correlation_profile
from dslm_patches.theory.ffn import balanced_ffn_variance
from dslm_patches.theory.shape import ModelShape


def residual_squares(num_layers: int, options: SchemeOptions) -> tuple[float, float]:
    """(lambda^2, beta^2): as given, or 1 - k/N^alpha and k/N^alpha.

    Raises:
        OptionError: lambda^2 or beta^2 not in (0, 1), or the two given and not adding up to 1.
    """
    given_lambda, given_beta = options.lambda_sq, options.beta_sq
    if given_lambda is None and given_beta is None:
        beta_sq = options.k / num_layers**options.alpha
        if not 0.0 < beta_sq < 1.0:
            raise OptionError(
                f"{{k}} {options.k:g} with {{alpha}} {options.alpha:g} over {num_layers} layers makes "
                f"beta^2 = {beta_sq:.4g} and lambda^2 = {1 - beta_sq:.4g}; both must lie in (0, 1): "
                f"give {{k}} below {num_layers**options.alpha:g}",
                "k",
                "alpha",
            )
        return 1.0 - beta_sq, beta_sq
    lambda_sq = given_lambda if given_lambda is not None else 1.0 - (given_beta or 0.0)
    beta_sq = given_beta if given_beta is not None else 1.0 - lambda_sq
    if not (0.0 < lambda_sq < 1.0 and 0.0 < beta_sq < 1.0):
        raise OptionError(
            f"{{lambda_sq}} {lambda_sq:g} and {{beta_sq}} {beta_sq:g} must each lie in (0, 1)", "lambda_sq", "beta_sq"
        )
    if abs(lambda_sq + beta_sq - 1.0) > 1e-6:
        raise OptionError(
            f"{{lambda_sq}} {lambda_sq:g} and {{beta_sq}} {beta_sq:g} must add up to 1, not "
            f"{lambda_sq + beta_sq:g}: give only one of them",
            "lambda_sq",
            "beta_sq",
        )
    return lambda_sq, beta_sq


def _value_stds(shape: ModelShape, values: ValueMoments) -> tuple[float, float]:
    """Std of V and O so that (d wv^2) (a wo^2) r_eff = 1-p, both factors equal; a is the width of the heads."""
    gain = math.sqrt((1.0 - shape.hidden_dropout) / values.variance)
    return math.sqrt(gain / shape.hidden_size), math.sqrt(gain / shape.attention_size)


@scheme("dslm")
def dslm(shape: ModelShape, options: SchemeOptions) -> DepthScheme:
    """The recipe of arXiv 2403.09635 for any activation, FFN ratio, mask and number of embedding tables.

    | weight                   | variance                                                            |
    |--------------------------|---------------------------------------------------------------------|
    | each of n_e embeddings   | (1-p) / n_e                                                         |
    | Q, K                     | 1 / d                                                               |
    | V, O of layer l          | sqrt((1-p) / r_eff) / d, r_eff the layer's own (theory.averaging)   |
    | FFN up, down             | equal gains whose product gives variance 1-p before dropout         |
    | LM head, pooler, binary  | 1 / d                                                               |

    Raises:
        OptionError: residual coefficients outside (0, 1).
        ValueError: a correlation or dropout outside its domain.
    """
    lambda_sq, beta_sq = residual_squares(shape.num_layers, options)
    keep = 1.0 - shape.hidden_dropout
    ffn_variance = balanced_ffn_variance(shape.activation, shape.gated, shape.ffn_ratio, keep)
    unit = 1.0 / math.sqrt(shape.hidden_size)
    ffn = math.sqrt(ffn_variance / shape.hidden_size)
    role = WeightRole
    layers = []
    for layer in correlation_profile(shape, lambda_sq, beta_sq):
        std = dict.fromkeys((role.QUERY, role.KEY), unit) | dict.fromkeys((role.FFN_UP, role.FFN_DOWN), ffn)
        std[role.VALUE], std[role.ATTENTION_OUTPUT] = _value_stds(shape, layer.self_attention)
        if layer.cross_attention is not None:
            std |= dict.fromkeys((role.CROSS_QUERY, role.CROSS_KEY), unit)
            std[role.CROSS_VALUE], std[role.CROSS_OUTPUT] = _value_stds(shape, layer.cross_attention)
        layers.append(LayerPrescription(std, math.sqrt(lambda_sq), math.sqrt(beta_sq)))
    embedding = math.sqrt(keep / shape.embedding_tables)
    tables = (role.WORD_EMBEDDING, role.POSITION_EMBEDDING, role.TOKENTYPE_EMBEDDING)
    return DepthScheme(
        name="dslm",
        norm_placement=options.norm_placement,
        layers=tuple(layers),
        model_std=dict.fromkeys(role, unit) | dict.fromkeys(tables, embedding),
        # Tied logits: d features of variance 1 against embedding rows of variance e^2.
        head_scale=1.0 / (math.sqrt(shape.hidden_size) * embedding) if shape.tied_output else 1.0,
    )
