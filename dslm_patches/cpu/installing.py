"""The one call that changes a process; this file imports neither torch nor megatron-core before it."""

import importlib

# What a training process uses of megatron-core. Loaded before constants are replaced, since a module that is
# imported later would keep its own.
TRAINING_MODULES = (
    "megatron.core.models.gpt",
    "megatron.core.models.bert.bert_model",
    "megatron.core.models.T5.t5_model",
    "megatron.core.distributed",
    "megatron.core.optimizer",
    "megatron.core.pipeline_parallel",
    "megatron.core.tensor_parallel",
    "megatron.core.transformer",
    "megatron.core.dist_checkpointing",
    "megatron.core.dist_checkpointing.strategies.async_utils",
    "megatron.core.dist_checkpointing.strategies.filesystem_async",
    "megatron.core.dist_checkpointing.strategies.fully_parallel",
    "megatron.core.dist_checkpointing.strategies.state_dict_saver",
    "megatron.core.dist_checkpointing.strategies.torch",
    "megatron.core.rerun_state_machine",
)

_installed: dict[str, tuple[str, ...]] = {}


def install() -> bool:
    """Let megatron-core run on CPU and gloo in this process, unless CUDA is there.

    Call it before megatron-core is imported, so that it finds neither Transformer Engine nor Apex, and in any case
    before building models, optimizers or process groups. Where those packages were imported already, it says so in a
    line on stderr, on the first rank, and goes on. Calling it again does nothing.

    Returns:
        True if the patches are in place, False if CUDA is available and nothing was touched.
    """
    import torch

    if torch.cuda.is_available():
        return False
    if not _installed:
        from dslm_patches.cpu.gpu_packages import hide_gpu_packages, warn_of_gpu_packages
        from dslm_patches.cpu.late_compile import compile_late

        warn_of_gpu_packages()
        hide_gpu_packages()
        compile_late()
        for name in TRAINING_MODULES:
            importlib.import_module(name)
        from dslm_patches.cpu.patches import PATCHES  # which imports megatron-core

        for patch in PATCHES:
            _installed[patch.__name__] = patch()
    return True


def installed_patches() -> dict[str, tuple[str, ...]]:
    """What `install` replaced in this process: the names of the places, by patch; empty before `install`."""
    return dict(_installed)
