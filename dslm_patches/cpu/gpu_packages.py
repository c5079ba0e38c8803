"""Transformer Engine and Apex, out of megatron-core's sight in a process without a GPU."""

import sys

import torch

GPU_PACKAGES = ("transformer_engine", "transformer_engine_torch", "apex", "amp_C")


def hide_gpu_packages() -> None:
    """Makes packages that compute on a GPU alone look as if they were not installed, unless CUDA is there.

    megatron-core takes its final norm, its optimizers and more from them wherever it can import them.
    """
    if not torch.cuda.is_available():
        for name in GPU_PACKAGES:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # importing it is an ImportError now


def refuse_gpu_packages() -> None:
    """Raises RuntimeError if they were imported before they could be hidden."""
    for name in GPU_PACKAGES:
        if sys.modules.get(name) is not None:
            raise RuntimeError(
                f"megatron-core on CPU: {name} was imported already, and needs a GPU; import dslm_patches.cpu before "
                "megatron.core"
            )
