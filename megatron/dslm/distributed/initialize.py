"""Starts and ends a rank: CPU runtime where there is no GPU, process groups, seeds."""

import os
from argparse import Namespace
from datetime import timedelta

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.num_microbatches_calculator import init_num_microbatches_calculator
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER

import dslm_patches.cpu
from dslm_patches.errors import UserError
from megatron.dslm.faults.rendezvous import Rendezvous


def initialize(args: Namespace) -> Rendezvous:
    """Brings this rank up: torch.distributed, megatron-core's process groups, micro-batches and RNG."""
    if dslm_patches.cpu.install():
        dslm_patches.cpu.keep_freed_memory()
    elif USING_PYTORCH_OPTIMIZER:  # a GPU with neither Transformer Engine nor Apex
        dslm_patches.cpu.resume_distributed_adam()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        os.environ.setdefault(name, value)
    if torch.cuda.is_available():
        local, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= devices:
            raise UserError(f"torchrun --nproc-per-node: rank {local} of this machine has no GPU, there are {devices}")
        torch.cuda.set_device(local)
    else:
        limit_threads(args.world_size)
    rendezvous = Rendezvous(args)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=rendezvous.store,
            rank=args.rank,
            world_size=args.world_size,
            timeout=timedelta(minutes=args.distributed_timeout_minutes),
        )
    initialize_model_parallel(args)
    return rendezvous


def initialize_model_parallel(args: Namespace) -> None:
    """megatron-core's process groups, micro-batch calculator and RNG, on running torch.distributed."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=args.tensor_model_parallel_size,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=args.virtual_pipeline_model_parallel_size,
    )
    init_num_microbatches_calculator(
        args.rank, None, args.global_batch_size, args.micro_batch_size, args.data_parallel_size
    )
    seed_dropout(args.seed)


def limit_threads(world_size: int) -> None:
    """One thread for each of several ranks, as torchrun has it; a lone process keeps the cores that torch found.

    Whoever set the environment that torch reads when it is imported, torchrun or a user, has decided already.
    """
    if world_size > 1 and not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        torch.set_num_threads(1)


def seed_dropout(seed: int) -> None:
    """Seeds dropout: equal on the tensor-parallel ranks where activations are, different everywhere else.

    Weights and data order do not depend on these states, so data-parallel ranks can have masks of their own.
    """
    place = (
        parallel_state.get_data_parallel_rank() * parallel_state.get_pipeline_model_parallel_world_size()
        + parallel_state.get_pipeline_model_parallel_rank()
    )
    torch.manual_seed(seed_of_place(seed, place))
    tensor_parallel.model_parallel_cuda_manual_seed(seed_of_place(seed, place))


SEEDS_OF_A_PLACE = 1 << 13
"""megatron-core derives more seeds from a place's by adding 1024, and 2718 and the tensor-parallel rank. The CPU's
generator reads 32 bits of a seed: half a million places."""


def seed_of_place(seed: int, place: int) -> int:
    """The seed of a place, which is a pipeline stage of a data-parallel replica, numbered from 0."""
    return seed + SEEDS_OF_A_PLACE * place


def shut_down() -> None:
    """Takes the process groups down, so that no rank waits for one that has left."""
    if torch.distributed.is_initialized():
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
