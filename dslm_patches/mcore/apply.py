"""One call that puts a depth scheme on a built megatron-core model."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from dslm_patches.errors import UserError
from dslm_patches.mcore.covered import refuse_unknown_model, transformer_layers
from dslm_patches.mcore.initialize import initialize_weights
from dslm_patches.mcore.post_ln import PostLNTransformerLayer
from dslm_patches.mcore.residual import scale_residuals
from dslm_patches.mcore.shape import model_shape
from dslm_patches.schemes import DepthScheme, NormPlacement, SchemeOptions, build_scheme

_OF_THE_MODEL = (
    *("hidden_size", "ffn_hidden_size", "attention_size", "head_size", "causal", "activation", "gated"),
    *("hidden_dropout", "attention_dropout", "embedding_tables", "tied_output"),
)
"""What a prescription's shape and a model must have in common: all but what its data decide."""


@dataclass
class AppliedScheme:
    """What `apply_scheme` put on a model last, kept as the model's attribute `applied_scheme`.

    Attributes:
        scheme: the prescription.
        head: of the hook that scales the head's input; None where nothing does.
    """

    scheme: DepthScheme
    head: RemovableHandle | None


def apply_scheme(
    model: nn.Module,
    scheme: str | DepthScheme,
    *,
    seed: int,
    options: SchemeOptions | None = None,
    initialize: bool = True,
) -> DepthScheme:
    """Puts a depth scheme on a megatron-core BertModel or GPTModel chunk: weights, residuals, head scale.

    Call it on each unwrapped model chunk, after it is built and before it is wrapped for data parallelism or
    handed to an optimizer. For Post-LN build the model from `with_norm_placement(spec, "post")`. A scheme that was put
    on before is replaced.

    Args:
        scheme: a name (its shape is read off the model) or a prescription built by `build_scheme`.
        seed: of the weights; the same seed gives the same model in every layout.
        options: for a scheme given by name; without them the norm placement, too, is read off the model.
        initialize: draw the weights; False when a checkpoint will fill them.

    Returns:
        The prescription that was applied, also found in `model.applied_scheme`.

    Raises:
        UserError: unknown scheme, a model of another kind, a model whose norm placement is not the scheme's or whose
            shape is not the prescription's, a parameter without role. The model is then as it was.
    """
    refuse_unknown_model(model)
    layers = transformer_layers(model)
    if isinstance(scheme, str):
        placed = _norm_placement(layers[0]) if layers else "pre"
        scheme = build_scheme(scheme, model_shape(model), options or SchemeOptions(norm_placement=placed))
    else:
        _check_shape(model, scheme)
    for layer in layers:
        _check_placement(layer, scheme)
    if initialize:
        initialize_weights(model, scheme, seed)
    for layer in layers:
        scale_residuals(layer, scheme.layers[layer.layer_number - 1])
    _scale_head(model, scheme)
    return scheme


def _norm_placement(layer: nn.Module) -> NormPlacement:
    return "post" if isinstance(layer, PostLNTransformerLayer) else "pre"


def _check_shape(model: Any, scheme: DepthScheme) -> None:
    own = model_shape(model)
    if len(scheme.layers) != own.num_layers:
        raise UserError(f"the scheme is of {len(scheme.layers)} layers and the model of {own.num_layers}")
    for name in _OF_THE_MODEL if scheme.shape is not None else ():
        wanted, found = getattr(scheme.shape, name), getattr(own, name)
        if wanted != found:
            raise UserError(f"the scheme is of a model whose {name} is {wanted}, and this one's is {found}")


def _check_placement(layer: nn.Module, scheme: DepthScheme) -> None:
    placement = _norm_placement(layer)
    if placement != scheme.norm_placement:
        raise UserError(
            f"the scheme is {scheme.norm_placement}-LN and the model {placement}-LN: build the model "
            f"from with_norm_placement(spec, {scheme.norm_placement!r})"
        )


def _scale_head(model: Any, scheme: DepthScheme) -> None:
    before: AppliedScheme | None = getattr(model, "applied_scheme", None)
    if before is not None and before.head is not None:
        before.head.remove()
    head, output_layer = None, getattr(model, "output_layer", None)
    if output_layer is not None and scheme.head_scale != 1.0:
        head = output_layer.register_forward_pre_hook(_InputScale(scheme.head_scale), with_kwargs=True)
    model.applied_scheme = AppliedScheme(scheme, head)


class _InputScale:
    """Forward pre-hook of the output layer: multiplies the hidden states, its first input, by a constant."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (args[0] * self.scale, *args[1:]), kwargs
        return args, {**kwargs, "input_": kwargs["input_"] * self.scale}
