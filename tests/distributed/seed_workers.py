"""Seeds of dropout, inside a rank."""

import torch
from megatron.core.tensor_parallel import random

from megatron.dslm.distributed.initialize import seed_dropout


def derived_by_megatron(seed: int, tensor_parallel: int) -> list[set[int]]:
    """The seeds that megatron-core sets for one, by tensor-parallel rank."""
    found = []
    for rank in range(tensor_parallel):
        random.model_parallel_cuda_manual_seed(seed, tp_rank=rank, ep_rank=0, etp_rank=rank)
        found.append({seed, *random.get_cuda_rng_tracker().seeds_})
    return found


def seeds_of_this_rank(seed: int) -> tuple[int, set[int]]:
    """Of torch's generator, and of megatron-core's states."""
    seed_dropout(seed)
    return torch.initial_seed(), set(random.get_cuda_rng_tracker().seeds_)
