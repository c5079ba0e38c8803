"""CPU stand-ins for the parts of `torch.cuda` that megatron-core calls while it trains and checkpoints.

Without CUDA these functions raise; each stand-in answers what is true of a CPU: one device, no queue of work
to wait for, and the default CPU generator as the only source of random numbers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

CPU = torch.device("cpu")


class CpuStream(torch.cpu.Stream):
    """A stream that is always up to date; takes the arguments of `torch.cuda.Stream`."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        super().__init__(priority)

    def record_event(self, event: "CpuEvent | None" = None) -> "CpuEvent":  # type: ignore[override]
        """All earlier work is done already: return a finished event."""
        return event or CpuEvent()

    def synchronize(self) -> None:
        """There is nothing to wait for."""


class CpuEvent(torch.cpu.Event):
    """An event that has always happened; takes the arguments of `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, external: bool = False) -> None:
        super().__init__()


class CpuGenerators:
    """Stands for the tuple `torch.cuda.default_generators`: any index gives the CPU's generator."""

    def __getitem__(self, device: object) -> torch.Generator:
        return torch.default_generator


_DEFAULT_STREAM = CpuStream()


def current_device() -> torch.device:
    """A device rather than a number: megatron-core passes the answer on as `device=`."""
    return CPU


def set_device(device: object) -> None:
    """There is only one device to choose."""


def synchronize(device: object = None) -> None:
    """Work on CPU is done when the call that started it returns."""


def current_stream(device: object = None) -> CpuStream:
    """The one stream there is."""
    return _DEFAULT_STREAM


def default_stream(device: object = None) -> CpuStream:
    """The one stream there is."""
    return _DEFAULT_STREAM


def stream_context(stream: Any) -> AbstractContextManager:
    """Context in which work goes to `stream`: on CPU it runs at once either way."""
    return torch.cpu.stream(stream)


def get_rng_state(device: object = None) -> torch.Tensor:
    """State of the generator that dropout on CPU tensors draws from."""
    return torch.get_rng_state()


def set_rng_state(new_state: torch.Tensor, device: object = None) -> None:
    """Set the state of the generator that dropout on CPU tensors draws from."""
    torch.set_rng_state(new_state)


def manual_seed(seed: int) -> None:
    """Seed the generator that dropout on CPU tensors draws from."""
    torch.default_generator.manual_seed(int(seed))


def range_push(message: str) -> int:
    """Opens no profiler range: NVTX belongs to NVIDIA's profiler."""
    return 0


def range_pop() -> int:
    """Closes no profiler range."""
    return 0


# One object for each name: torch.compile keeps its rules for torch's functions by object, and refuses to work
# if an object stands for two names with different rules.
DEVICE: dict[str, Callable] = {
    "torch.cuda.current_device": current_device,
    "torch.cuda.set_device": set_device,
    "torch.cuda.synchronize": synchronize,
}
STREAMS: dict[str, Callable] = {
    "torch.cuda.current_stream": current_stream,
    "torch.cuda.default_stream": default_stream,
    "torch.cuda.stream": stream_context,
    "torch.cuda.Stream": CpuStream,
    "torch.cuda.Event": CpuEvent,
}
RANDOM: dict[str, Any] = {
    "torch.cuda.get_rng_state": get_rng_state,
    "torch.cuda.random.get_rng_state": get_rng_state,
    "torch.cuda.set_rng_state": set_rng_state,
    "torch.cuda.manual_seed": manual_seed,
    "torch.cuda.default_generators": CpuGenerators(),
}
PROFILER_RANGES: dict[str, Callable] = {
    "torch.cuda.nvtx.range_push": range_push,
    "torch.cuda.nvtx.range_pop": range_pop,
}
