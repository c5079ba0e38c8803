"""Transformer Engine and Apex, out of megatron-core's sight in a process without a GPU."""

import os
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


def warn_of_gpu_packages() -> None:
    """Says in one line on stderr, on the first rank, that some were imported before they could be hidden."""
    found = [name for name in GPU_PACKAGES if sys.modules.get(name) is not None]
    if found and os.environ.get("RANK", "0") == "0":
        print(
            f"warning: megatron-core on CPU: {', '.join(found)} was imported already, and what megatron-core takes of "
            "it needs a GPU: call dslm_patches.cpu.install() before megatron.core is imported",
            file=sys.stderr,
            flush=True,
        )
