"""Puts a depth scheme on an unmodified megatron-core model: Post-LN layers, residual scaling, weights, head."""

from dslm_patches.mcore.apply import apply_scheme
from dslm_patches.mcore.cpu_kernels import use_cpu_kernels, use_cpu_kernels_around_layers, with_cpu_kernels
from dslm_patches.mcore.shape import model_shape
from dslm_patches.mcore.specs import layer_spec, with_norm_placement

__all__ = [
    "apply_scheme",
    "layer_spec",
    "model_shape",
    "use_cpu_kernels",
    "use_cpu_kernels_around_layers",
    "with_cpu_kernels",
    "with_norm_placement",
]
