"""Run unmodified megatron-core on CPU and gloo: call `install()` once, before building anything.

Where there is no GPU, importing this package hides Transformer Engine and Apex: import it before megatron-core.
"""

from dslm_patches.cpu.gpu_packages import hide_gpu_packages
from dslm_patches.cpu.late_compile import compile_late

hide_gpu_packages()  # before the next line imports megatron-core
compile_late()

from dslm_patches.cpu.distributed_adam import resume_distributed_adam  # noqa: E402
from dslm_patches.cpu.layer_norm import LayerNorm, Norm, RMSNorm  # noqa: E402
from dslm_patches.cpu.memory import keep_freed_memory  # noqa: E402
from dslm_patches.cpu.patches import install, installed_patches  # noqa: E402

__all__ = [
    "LayerNorm",
    "Norm",
    "RMSNorm",
    "install",
    "installed_patches",
    "keep_freed_memory",
    "resume_distributed_adam",
]
