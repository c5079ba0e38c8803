"""Run unmodified megatron-core on CPU and gloo: call `install()` once, before megatron-core is imported.

Importing this package changes nothing and imports neither torch nor megatron-core; `install` does.
"""

from typing import TYPE_CHECKING, Any

from dslm_patches.cpu.installing import install, installed_patches
from dslm_patches.cpu.memory import keep_freed_memory

if TYPE_CHECKING:
    from dslm_patches.cpu.distributed_adam import resume_distributed_adam
    from dslm_patches.cpu.layer_norm import LayerNorm, Norm, RMSNorm

__all__ = [
    "LayerNorm",
    "Norm",
    "RMSNorm",
    "install",
    "installed_patches",
    "keep_freed_memory",
    "resume_distributed_adam",
]


def __getattr__(name: str) -> Any:
    if name in ("LayerNorm", "Norm", "RMSNorm"):
        from dslm_patches.cpu import layer_norm

        return getattr(layer_norm, name)
    if name == "resume_distributed_adam":
        from dslm_patches.cpu.distributed_adam import resume_distributed_adam

        return resume_distributed_adam
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
