"""What of a run goes into a checkpoint, as megatron-core's sharded state: weights, optimizer, random states."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.utils import unwrap_model

from megatron.dslm.distributed.random_states import random_states

# Any layout can load the optimizer state, at the price of gathering it on save.
METADATA = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": False,
    "singleton_local_shards": False,
    "chained_optim_avoid_prefix": True,
}


class TrainState(Protocol):
    """What a checkpoint holds of a run, as its trainer has it.

    Attributes:
        chunks: this rank's wrapped model chunks.
        optimizer, scheduler: megatron-core's.
        consumed_samples: training samples that the run has gone through.
    """

    chunks: list[Any]
    optimizer: Any
    scheduler: Any
    consumed_samples: int


def named_chunks(chunks: list[Any]) -> list[tuple[str, Any]]:
    """This rank's unwrapped model chunks by their names in a checkpoint."""
    if len(chunks) == 1:
        return [("model", unwrap_model(chunks[0]))]
    return [(f"model{index}", unwrap_model(chunk)) for index, chunk in enumerate(chunks)]


def sharded_models(chunks: list[Any]) -> dict[str, Any]:
    """The sharded weights of this rank's model chunks."""
    # Copies of the metadata: megatron-core adds its process groups to it.
    return {name: chunk.sharded_state_dict(metadata=dict(METADATA)) for name, chunk in named_chunks(chunks)}


def sharded_state(trainer: TrainState, *, is_loading: bool) -> dict[str, Any]:
    """The sharded weights and optimizer state."""
    models = sharded_models(trainer.chunks)
    with _offsets_without_padding(trainer.optimizer):
        optimizer = trainer.optimizer.sharded_state_dict(dict(models), is_loading=is_loading, metadata=dict(METADATA))
    return {**models, "optimizer": optimizer}


@contextmanager
def _offsets_without_padding(optimizer: Any) -> Iterator[None]:
    """Tells a distributed optimizer where its parameters are once the padding between buckets is taken out.

    megatron-core 0.16 gathers the state without that padding and then cuts it by offsets that count it, so that from
    the second bucket on (tied embeddings over pipeline stages, --overlap-grad-reduce) it saves other numbers than each
    parameter's own.
    """
    buffers = [buffer for one in optimizer.chained_optimizers for buffer in getattr(one, "buffers", [])]
    kept = [buffer.param_index_map for buffer in buffers]
    for buffer in buffers:
        shifts: dict[Any, int] = {}
        unpadded = 0
        for bucket in buffer.buckets:
            shifts |= dict.fromkeys(bucket.params, bucket.offset - unpadded)
            unpadded += bucket.numel_unpadded
        buffer.param_index_map = {
            one: (start - shifts[one], end - shifts[one], bucket)
            for one, (start, end, bucket) in buffer.param_index_map.items()
        }
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.param_index_map = before


def sharded_rng_state() -> ShardedObject:
    """This rank's random states, which belong to its place in the layout."""
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
    return ShardedObject("rng_state", random_states(), sizes, ranks, replica_id=0)
