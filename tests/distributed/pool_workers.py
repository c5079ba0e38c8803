"""Rank functions of test_pool.py."""

import os
import time

import torch
from megatron.core import num_microbatches_calculator, parallel_state, tensor_parallel


def rank_and_sum(value: float) -> tuple[int, float, float]:
    """This rank, the sum of `value` over all ranks, and a number from the seeded generator."""
    total = torch.tensor(value)
    torch.distributed.all_reduce(total)
    return torch.distributed.get_rank(), float(total), float(torch.rand(()))


def raise_on(rank: int) -> None:
    """Raise on one rank while the others wait for it in a collective."""
    if torch.distributed.get_rank() == rank:
        raise KeyError("what went wrong")
    torch.distributed.all_reduce(torch.ones(1))


def exit_process(code: int) -> None:
    """End this process at once, as a crash would."""
    os._exit(code)


def exit_program() -> None:
    """End as a command line does."""
    raise SystemExit("bad flag")


def sleep(seconds: float) -> None:
    """Do not answer for some time."""
    time.sleep(seconds)


def leave_global_state() -> None:
    """Set what the pool has to reset."""
    num_microbatches_calculator.init_num_microbatches_calculator(0, None, 8, 1, 1)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    os.environ["LEFT_BEHIND"] = "1"


def global_state() -> list[bool]:
    """Whether anything of a former call is left."""
    return [
        num_microbatches_calculator._GLOBAL_NUM_MICROBATCHES_CALCULATOR is not None,
        torch.get_default_dtype() is not torch.float32,
        not torch.is_grad_enabled(),
        "LEFT_BEHIND" in os.environ,
        parallel_state.model_parallel_is_initialized(),
        torch.distributed.is_initialized(),
        tensor_parallel.get_cuda_rng_tracker().is_initialized(),
    ]
