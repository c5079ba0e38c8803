"""The random states of a rank: PyTorch's and megatron-core's, which dropout draws from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core import tensor_parallel


def random_states() -> dict[str, Any]:
    """The states as they are."""
    state = {"cpu": torch.get_rng_state(), "tracker": tensor_parallel.get_cuda_rng_tracker().get_states()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_states(state: dict[str, Any]) -> None:
    """Puts back what `random_states` gave."""
    tensor_parallel.get_cuda_rng_tracker().set_states(state["tracker"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    torch.set_rng_state(state["cpu"])


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Leaves them as they were, whatever is drawn inside."""
    state = random_states()
    try:
        yield
    finally:
        set_random_states(state)
