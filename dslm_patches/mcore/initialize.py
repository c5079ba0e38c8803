"""Draws every weight of a model by a scheme, the same whatever the tensor, pipeline or data layout."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from dslm_patches.errors import UserError
from dslm_patches.mcore.roles import ParameterRole, parameter_role
from dslm_patches.mcore.shards import is_gated, own_shard, whole_shape
from dslm_patches.schemes import DepthScheme


def initialize_weights(model: Any, scheme: DepthScheme, seed: int) -> None:
    """Fills every parameter of an unwrapped model chunk: weights by role, biases 0, norm weights 1.

    Each weight's whole tensor is drawn on the CPU in float32 from a generator seeded by (seed, global name)
    and this rank keeps its shard: so all layouts and devices hold the same model, and one layer can be drawn
    again alone.

    Raises:
        UserError: a parameter whose role is not known, by its name.
    """
    for name, parameter in model.named_parameters():
        if _rule(model, name, parameter) is None:
            raise UserError(f"depth scheme {scheme.name}: no rule to initialise the parameter {name}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rule = _rule(model, name, parameter)
            if isinstance(rule, ParameterRole):
                whole = draw_weight(rule, whole_shape(parameter), scheme, seed)
                parameter.copy_(own_shard(whole, parameter, gated=is_gated(model, name)))
            else:
                parameter.fill_(rule)


def _rule(model: Any, name: str, parameter: Tensor) -> ParameterRole | float | None:
    """What a parameter is filled with: a drawn weight or a constant; None if that is not known."""
    if parameter.dim() == 2:
        return parameter_role(model, name, whole_shape(parameter)[0])
    if name.endswith(("bias", "layer_norm_bias")):
        return 0.0
    if "norm" in name and name.endswith("weight"):
        return 0.0 if model.config.layernorm_zero_centered_gamma else 1.0
    return None


def draw_weight(role: ParameterRole, shape: tuple[int, ...], scheme: DepthScheme, seed: int) -> Tensor:
    """The whole (unsharded) weight of a role, float32 on the CPU, rows scaled by the std of what they do.

    Args:
        role: from `parameter_role`.
        shape: [out_features, in_features] of the whole weight.
    """
    digest = hashlib.sha256(f"{seed}:{role.global_name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    weight = torch.empty(shape).normal_(generator=generator)
    pattern = torch.cat([torch.full((count,), scheme.std(part, role.layer_number)) for part, count in role.rows])
    assert shape[0] % len(pattern) == 0, f"{role.global_name}: {shape[0]} rows, pattern of {len(pattern)}"
    return weight.mul_(pattern.repeat(shape[0] // len(pattern)).unsqueeze(1))
