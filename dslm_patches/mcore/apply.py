"""One call that puts a depth scheme on a built megatron-core model."""

from typing import Any

from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import nn

from dslm_patches.errors import UserError
from dslm_patches.mcore.initialize import initialize_weights
from dslm_patches.mcore.post_ln import PostLNTransformerLayer
from dslm_patches.mcore.residual import scaled_bias_dropout_add
from dslm_patches.mcore.shape import model_shape
from dslm_patches.schemes import DepthScheme, LayerPrescription, SchemeOptions, build_scheme


def apply_scheme(
    model: nn.Module,
    scheme: str | DepthScheme,
    *,
    seed: int,
    options: SchemeOptions | None = None,
    initialize: bool = True,
) -> DepthScheme:
    """Puts a depth scheme on a megatron-core BertModel or GPTModel chunk: residuals, head scale, weights.

    Call it on each unwrapped model chunk, after it is built and before it is wrapped for data parallelism or
    handed to an optimizer. For Post-LN build the model from `with_norm_placement(spec, "post")`.

    Args:
        scheme: a name (its shape is read off the model) or a prescription built by `build_scheme`.
        seed: of the weights; the same seed gives the same model in every layout.
        options: for a scheme given by name.
        initialize: draw the weights; False when a checkpoint will fill them.

    Returns:
        The prescription that was applied.

    Raises:
        UserError: unknown scheme, a model whose norm placement is not the scheme's, a parameter without role.
    """
    if isinstance(scheme, str):
        scheme = build_scheme(scheme, model_shape(model), options)
    for module in model.modules():
        if isinstance(module, TransformerLayer):
            placement = "post" if isinstance(module, PostLNTransformerLayer) else "pre"
            if placement != scheme.norm_placement:
                raise UserError(
                    f"the scheme is {scheme.norm_placement}-LN and the model {placement}-LN: build the model "
                    f"from with_norm_placement(spec, {scheme.norm_placement!r})"
                )
            scale_residuals(module, scheme.layers[module.layer_number - 1])
    output_layer = getattr(model, "output_layer", None)
    if output_layer is not None and scheme.head_scale != 1.0:
        output_layer.register_forward_pre_hook(_InputScale(scheme.head_scale), with_kwargs=True)
    if initialize:
        initialize_weights(model, scheme, seed)
    return scheme


def scale_residuals(layer: Any, prescription: LayerPrescription) -> None:
    """Puts a layer's two residual coefficients on its adds."""
    if (prescription.skip_scale, prescription.branch_scale) == (1.0, 1.0):
        return  # megatron-core's own add, bit for bit
    scaled = scaled_bias_dropout_add(prescription.skip_scale, prescription.branch_scale)
    layer.self_attn_bda = layer.mlp_bda = scaled
    if not isinstance(layer.cross_attention, IdentityOp):
        layer.cross_attn_bda = scaled


class _InputScale:
    """Forward pre-hook of the output layer: multiplies the hidden states, its first input, by a constant."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (args[0] * self.scale, *args[1:]), kwargs
        return args, {**kwargs, "input_": kwargs["input_"] * self.scale}
