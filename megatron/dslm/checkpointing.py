"""Save, load and resume through megatron-core's distributed checkpoints, in Megatron-LM's folder layout."""

import os
import shutil
from argparse import Namespace
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor
from megatron.core.utils import unwrap_model

from megatron.dslm.checkpoint_folder import (
    LAYOUT,
    TRACKER,
    check_architecture,
    check_continuation,
    find_checkpoint,
    iteration_folder,
    read_arguments,
    write_arguments,
)
from megatron.dslm.ranks import from_all_ranks
from megatron.dslm.training.step import Trainer

__all__ = ["find_checkpoint", "load_checkpoint", "load_weights", "read_arguments", "save_checkpoint", "save_weights"]

# Any layout can load the optimizer state, at the price of gathering it on save.
_METADATA = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": False,
    "singleton_local_shards": False,
    "chained_optim_avoid_prefix": True,
}


def save_checkpoint(args: Namespace, iteration: int, trainer: Trainer) -> str:
    """Saves everything needed to go on, in any layout; the folder. Call it on all ranks."""
    _finish_param_gather(args, trainer.chunks)
    state = _sharded_state(trainer, is_loading=False)
    state |= {
        "iteration": iteration,
        "rng_state": _sharded_rng_state(),
        "opt_param_scheduler": trainer.scheduler.state_dict(),
    }
    return _save(args, iteration, state)


def save_weights(args: Namespace, iteration: int, chunks: list[Any]) -> str:
    """Saves the weights of this rank's model chunks alone; the folder. Call it on all ranks."""
    _finish_param_gather(args, chunks)
    return _save(args, iteration, _sharded_models(chunks))


def _finish_param_gather(args: Namespace, chunks: list[Any]) -> None:
    """Under --overlap-param-gather a rank has the other ranks' part of the update only after the next forward began."""
    if args.overlap_param_gather:
        for chunk in chunks:
            chunk.start_param_sync(force_sync=True)


def _save(args: Namespace, iteration: int, state: dict[str, Any]) -> str:
    """Written aside and renamed when complete, so that a run that is killed meanwhile leaves the last one valid."""
    folder = iteration_folder(args.save, iteration)
    aside = folder + ".incomplete"
    if args.rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(aside)
    torch.distributed.barrier()
    dist_checkpointing.save(state, aside, content_metadata=dict(_METADATA))
    torch.distributed.barrier()
    if args.rank == 0:
        write_arguments(aside, args, iteration)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
        tracker = os.path.join(args.save, TRACKER)
        with open(tracker + ".incomplete", "w", encoding="utf-8") as file:
            file.write(str(iteration))
        os.replace(tracker + ".incomplete", tracker)
    torch.distributed.barrier()
    return folder


def load_checkpoint(args: Namespace, folder: str, trainer: Trainer) -> int:
    """Fills model, optimizer, schedule and RNG from a checkpoint of any layout; its iteration. All ranks call it.

    The RNG states of dropout belong to ranks: they are restored when the layout is the saved one, and
    otherwise stay as seeded.

    Raises:
        ValueError: a checkpoint of another architecture or scheme (the flags that differ are named), or weights alone.
    """
    saved = read_arguments(folder)
    check_architecture(args, saved, folder)
    check_continuation(args, saved, folder)
    if "iteration" not in dist_checkpointing.load_common_state_dict(folder):
        raise ValueError(f"--load: {folder} holds weights alone: give it as --pretrained-checkpoint")
    state = _sharded_state(trainer, is_loading=True)
    same_layout = all(saved.get(name) == getattr(args, name) for name in LAYOUT)
    if same_layout:
        state["rng_state"] = _sharded_rng_state()
    loaded = dist_checkpointing.load(state, folder)
    for name, chunk in _named_chunks(trainer.chunks):
        chunk.load_state_dict(loaded[name])
    trainer.optimizer.load_state_dict(loaded["optimizer"])
    trainer.scheduler.load_state_dict(loaded["opt_param_scheduler"])
    if same_layout:
        _set_rng_state(loaded["rng_state"])
    return int(loaded["iteration"])


def load_weights(chunks: list[Any], folder: str, flag: str = "--load", *, leave: str | None = None) -> list[str]:
    """Fills model chunks with what a checkpoint of any layout holds for them; the rest stays. All ranks call it.

    Args:
        leave: tensors whose names begin so stay too.

    Returns:
        The names in the model, on any rank, that were left: heads of another task.

    Raises:
        ValueError: on all ranks, a tensor of another shape, by its name; no tensor in common.
    """
    metadata = dist_checkpointing.load_tensors_metadata(folder)
    states = _sharded_models(chunks)
    missing, problem = [], None
    for state in states.values():
        for name, tensor in list(state.items()):
            if not isinstance(tensor, ShardedTensor):
                continue  # Transformer Engine's extra states
            if tensor.key not in metadata or (leave is not None and name.startswith(leave)):
                missing.append(name)
                del state[name]
            elif tensor.global_shape != metadata[tensor.key].global_shape and not tensor.allow_shape_mismatch:
                problem = (
                    f"{flag}: {folder} holds {tensor.key} of {list(metadata[tensor.key].global_shape)}, and the model "
                    f"wants {list(tensor.global_shape)}"
                )
    # A stage sees its own tensors, and all must leave before the first of them loads.
    everywhere = from_all_ranks((missing, problem, any(states.values())))
    problem = next((one for _, one, _ in everywhere if one), None)
    if problem is None and not any(found for _, _, found in everywhere):
        problem = f"{flag}: {folder} holds no tensor of this model"
    if problem is not None:
        raise ValueError(problem)
    loaded = dist_checkpointing.load(states, folder)
    for name, chunk in _named_chunks(chunks):
        chunk.load_state_dict(loaded[name], strict=False)
    return list(dict.fromkeys(name for names, _, _ in everywhere for name in names))


def _named_chunks(chunks: list[Any]) -> list[tuple[str, Any]]:
    if len(chunks) == 1:
        return [("model", unwrap_model(chunks[0]))]
    return [(f"model{index}", unwrap_model(chunk)) for index, chunk in enumerate(chunks)]


def _sharded_models(chunks: list[Any]) -> dict[str, Any]:
    # Copies of the metadata: megatron-core adds its process groups to it.
    return {name: chunk.sharded_state_dict(metadata=dict(_METADATA)) for name, chunk in _named_chunks(chunks)}


def _sharded_state(trainer: Trainer, *, is_loading: bool) -> dict[str, Any]:
    models = _sharded_models(trainer.chunks)
    optimizer = trainer.optimizer.sharded_state_dict(dict(models), is_loading=is_loading, metadata=dict(_METADATA))
    return {**models, "optimizer": optimizer}


def _sharded_rng_state() -> ShardedObject:
    state = {"cpu": torch.get_rng_state(), "tracker": tensor_parallel.get_cuda_rng_tracker().get_states()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    ranks = (
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(),
    )
    sizes = (
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(),
    )
    return ShardedObject("rng_state", state, sizes, ranks, replica_id=0)


def _set_rng_state(state: dict[str, Any]) -> None:
    tensor_parallel.get_cuda_rng_tracker().set_states(state["tracker"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    torch.set_rng_state(state["cpu"])
