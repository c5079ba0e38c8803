"""Everything that is patched so that megatron-core trains on CPU and gloo; `install` does it."""

import importlib
import logging
from collections.abc import Callable
from typing import Any

import torch

from dslm_patches.cpu import cuda_stand_ins
from dslm_patches.cpu.distributed_adam import resume_distributed_adam
from dslm_patches.cpu.layer_norm import Norm
from dslm_patches.cpu.literals import replace_in_package
from dslm_patches.cpu.replacing import replace_all


def device() -> tuple[str, ...]:
    """`torch.cuda.current_device` and `synchronize` raise without CUDA; megatron-core asks for the device in
    every buffer and receive it allocates, and waits for it around checkpoints and timers."""
    return replace_all(cuda_stand_ins.DEVICE)


def streams() -> tuple[str, ...]:
    """DDP and the distributed optimizer overlap communication on streams; from 0.17 on DDP asks for the
    current stream in every gradient reduction."""
    return replace_all(cuda_stand_ins.STREAMS)


def random_state() -> tuple[str, ...]:
    """The model-parallel RNG tracker saves, forks and restores the CUDA generator. Dropout on CPU tensors
    draws from the CPU generator, so that one has to stand in for it."""
    return replace_all(cuda_stand_ins.RANDOM)


def profiler_ranges() -> tuple[str, ...]:
    """NVTX ranges raise in builds without CUDA."""
    return replace_all(cuda_stand_ins.PROFILER_RANGES)


def tensor_and_module_cuda() -> tuple[str, ...]:
    """`.cuda()` moves tensors and modules to the device: on CPU they are there already."""

    def stay(self: Any, *_args: object, **_kwargs: object) -> Any:
        return self

    return replace_all({"torch.Tensor.cuda": stay, "torch.nn.Module.cuda": stay})


def lazy_call() -> tuple[str, ...]:
    """torch queues calls until CUDA is initialised, which never happens: the RNG tracker's `_set_cuda_rng_state`
    would do nothing. `tensor_parallel.random` holds its own copy of the function, imported by name."""

    def call_now(function: Callable[[], None], **_kwargs: object) -> None:
        function()

    return replace_all({"megatron.core.tensor_parallel.random._lazy_call": call_now})


def rng_fork_warning() -> tuple[str, ...]:
    """`CudaRNGStatesTracker.fork` warns at each dropout that the CPU generator changed inside a fork of the
    CUDA generator; here they are one, and `fork` restores it."""
    name = "megatron.core.tensor_parallel.random"

    def keep(record: logging.LogRecord) -> bool:
        return record.msg != "CPU RNG state changed within GPU RNG context"

    logging.getLogger(name).addFilter(keep)
    return (name,)


def device_literals() -> tuple[str, ...]:
    """`device="cuda"` in factory calls: gradient norm and scaling, token counts of the pipeline schedules,
    broadcasts of batches, exchange of checkpoint shards."""
    return replace_in_package("megatron.core", {"cuda": "cpu"})


def tensor_type_names() -> tuple[str, ...]:
    """Gradient clipping, the mixed-precision and the distributed optimizer tell tensors apart by the name of
    their CUDA type, and refuse all others."""
    names = ("FloatTensor", "HalfTensor", "BFloat16Tensor")
    return replace_in_package("megatron.core", {f"torch.cuda.{name}": f"torch.{name}" for name in names})


def gradient_scaling() -> tuple[str, ...]:
    """Clipping without Apex copies every gradient twice to multiply it by a number."""

    def scale_in_place(_chunk: int, _overflow: Any, tensors: Any, scale: float) -> None:
        sources, targets = tensors
        if any(source is not target for source, target in zip(sources, targets, strict=True)):
            torch._foreach_copy_(targets, sources)
        if targets:  # a rank may own nothing of an optimizer
            torch._foreach_mul_(targets, scale)

    return replace_all({"megatron.core.optimizer.clip_grads.multi_tensor_scale_impl": scale_in_place})


def sequence_parallel_norm() -> tuple[str, ...]:
    """`WrappedTorchNorm`, the norm of local specs without Apex, refuses sequence parallelism; the final norm
    and the BERT head use it whatever the layer spec says."""
    wrapped = importlib.import_module("megatron.core.transformer.torch_norm").WrappedTorchNorm
    original = wrapped.__new__

    def build(cls: type, config: Any, hidden_size: int, eps: float = 1e-5, **kwargs: Any) -> Any:
        if config.sequence_parallel:
            return Norm(config, hidden_size, eps)
        return original(cls, config, hidden_size, eps, **kwargs)

    return replace_all({"megatron.core.transformer.torch_norm.WrappedTorchNorm.__new__": build})


def async_checkpoint_writer() -> tuple[str, ...]:
    """megatron-core's persistent checkpoint writer is a spawned process, which no patch here reaches: it
    divides by the number of GPUs, and CPU tensors stay shared with the trainer, which changes them while they
    are written. The forked writer has neither problem, so it serves both."""
    async_utils = importlib.import_module("megatron.core.dist_checkpointing.strategies.async_utils")

    def forked_caller(self: Any, *_args: object) -> Any:
        return async_utils.TemporalAsyncCaller()

    return replace_all({f"{async_utils.__name__}.AsyncCallsQueue._get_async_caller": forked_caller})


PATCHES: tuple[Callable[[], tuple[str, ...]], ...] = (
    device,
    streams,
    random_state,
    profiler_ranges,
    tensor_and_module_cuda,
    lazy_call,
    rng_fork_warning,
    device_literals,
    tensor_type_names,
    gradient_scaling,
    sequence_parallel_norm,
    resume_distributed_adam,
    async_checkpoint_writer,
)
