"""Xavier initialisation without residual scaling, as in the vanilla figures of arXiv 2403.09635 (authors' code)."""

import math

from dslm_patches.schemes import scheme
from dslm_patches.schemes.base import DepthScheme, LayerPrescription, SchemeOptions, WeightRole
from dslm_patches.theory.shape import ModelShape


@scheme("xavier")
def xavier(shape: ModelShape, options: SchemeOptions) -> DepthScheme:
    """FFN sqrt(2/(d+f)); Q, K, V sqrt(2/(d+d_head)), fans as the authors count them; the rest 1/sqrt(d)."""
    d = shape.hidden_size
    unit = 1.0 / math.sqrt(d)
    qkv = math.sqrt(2.0 / (d + shape.head_size))
    ffn = math.sqrt(2.0 / (d + shape.ffn_hidden_size))
    role = WeightRole
    layer = LayerPrescription(
        {
            **dict.fromkeys((role.QUERY, role.KEY, role.VALUE), qkv),
            **dict.fromkeys((role.CROSS_QUERY, role.CROSS_KEY, role.CROSS_VALUE), qkv),
            **dict.fromkeys((role.ATTENTION_OUTPUT, role.CROSS_OUTPUT), unit),
            **dict.fromkeys((role.FFN_UP, role.FFN_DOWN), ffn),
        }
    )
    return DepthScheme(
        name="xavier",
        norm_placement=options.norm_placement,
        layers=(layer,) * shape.num_layers,
        model_std={**dict.fromkeys(role, unit), role.BINARY_HEAD: math.sqrt(2.0 / (d + 2))},
    )
