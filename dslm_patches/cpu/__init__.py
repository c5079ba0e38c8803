"""Run unmodified megatron-core on CPU and gloo: call `install()` once, before building anything."""

from dslm_patches.cpu.layer_norm import LayerNorm, Norm, RMSNorm
from dslm_patches.cpu.memory import keep_freed_memory
from dslm_patches.cpu.patches import install, installed_patches

__all__ = ["LayerNorm", "Norm", "RMSNorm", "install", "installed_patches", "keep_freed_memory"]
