"""torch.compile at the first call of what megatron-core decorates with it, rather than at its import."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


def compile_late() -> None:
    """Imports megatron-core; unless CUDA is there, what it fuses by torch.compile is compiled when it is first called.

    It hands them to torch.compile as it is imported, and that imports torch's compiler: a third of what a process takes
    to start, for functions that a run on CPU does not call.
    """
    if torch.cuda.is_available() or "megatron.core" in sys.modules:
        return
    torch_compile = torch.compile

    def compile_at_call(model: Any = None, **options: Any) -> Any:
        if model is None or options:  # not what jit_fuser does
            return torch_compile(model, **options)
        return compiled_late(torch_compile, model)

    torch.compile = compile_at_call
    try:
        import megatron.core  # noqa: F401  # whose jit_fuser is what stands there now
    finally:
        torch.compile = torch_compile


def compiled_late(torch_compile: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which its first call compiles."""
    compiled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        compiled = compiled or torch_compile(function)
        return compiled(*args, **kwargs)

    return call
