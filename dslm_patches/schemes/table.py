"""A scheme as a table that a person reads: in the trainer's summary and in the docs."""

from dslm_patches.schemes.base import DepthScheme, WeightRole


def _span(values: list[float]) -> str:
    """First, middle and last of a per-layer value, or one number when it does not change with depth."""
    first, middle, last = values[0], values[len(values) // 2], values[-1]
    if max(values) - min(values) < 1e-12:
        return f"{first:.6g}"
    return f"{first:.6g} / {middle:.6g} / {last:.6g}"


def scheme_summary(scheme: DepthScheme) -> list[str]:
    """Name and norm placement, residual add and head scale of a scheme, a line each."""
    return [
        f"depth scheme: {scheme.name}, {scheme.norm_placement}-LN",
        f"residual: x' = {_span([layer.skip_scale for layer in scheme.layers])} x"
        f" + {_span([layer.branch_scale for layer in scheme.layers])} f(x)",
        f"head scale: {scheme.head_scale:.6g}",
    ]


def scheme_table(scheme: DepthScheme, roles: list[WeightRole]) -> str:
    """The scheme as lines of text: residual, head scale, and the std of each role the model has.

    Where a std changes with depth, the first, middle and last layer's are shown.

    Args:
        scheme: the prescription.
        roles: the roles to show, in order; a role outside the layers is looked up in `model_std`.
    """
    lines = [*scheme_summary(scheme), "weight std (first / middle / last layer where it changes with depth):"]
    for role in roles:
        in_layers = [layer.std[role] for layer in scheme.layers if role in layer.std]
        std = _span(in_layers) if role in LAYER_ROLES else f"{scheme.model_std[role]:.6g}"
        lines.append(f"  {role.value:<22} {std}")
    return "\n".join(lines)


LAYER_ROLES = {
    WeightRole.QUERY,
    WeightRole.KEY,
    WeightRole.VALUE,
    WeightRole.ATTENTION_OUTPUT,
    WeightRole.CROSS_QUERY,
    WeightRole.CROSS_KEY,
    WeightRole.CROSS_VALUE,
    WeightRole.CROSS_OUTPUT,
    WeightRole.FFN_UP,
    WeightRole.FFN_DOWN,
}
