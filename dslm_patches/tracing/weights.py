"""Sums over the weights of every layer, their gradients and their updates, each element counted on one rank."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.tensor_parallel.layers import param_is_not_tensor_parallel_duplicate
from torch import Tensor

from dslm_patches.tracing.record import WeightStatistics
from dslm_patches.tracing.sites import transformer_layers

WEIGHT_FIELDS = (
    "count",
    "total",
    "squares",
    "gradients",
    "gradient_total",
    "gradient_squares",
    "update_squares",
    "updates",
)
"""What a row of sums holds, in float64: elements, their sum and squares, the same of the gradient, squares of the
update, and the number of elements whose update was seen."""


class WeightSums:
    """The parameters of the transformer layers of this rank, in float64 sums that add up over all ranks.

    Args:
        chunks: this rank's model chunks, wrapped or not. Call it on all ranks: they agree on the names.
        num_layers: layers of the whole model.
    """

    def __init__(self, chunks: Sequence[Any], num_layers: int) -> None:
        self._chunks = chunks
        own = {name for chunk in chunks for layer in transformer_layers(chunk) for name, _ in layer.named_parameters()}
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, sorted(own))
        self.names = tuple(sorted(set().union(*gathered)))
        device = next(chunks[0].parameters()).device
        self.sums = torch.zeros(len(self.names), num_layers, len(WEIGHT_FIELDS), dtype=torch.float64, device=device)
        self._before: dict[tuple[str, int], Tensor] = {}

    def start(self) -> None:
        """Forgets what was added."""
        self.sums.zero_()

    def add_weights(self, *, keep: bool) -> None:
        """Adds the weights, and keeps a copy for `add_updates`."""
        for chunk, place, weight in self._weights():
            own = _own_weights(chunk, weight)
            self._add(place, 0, (own.numel(), *_sums(own)))
            if keep:
                self._before[place] = own.clone()

    def add_gradients(self) -> None:
        """Adds the gradients, reduced over the data-parallel ranks and not clipped yet."""
        for chunk, place, weight in self._weights():
            gradient = getattr(weight, "main_grad", None)
            gradient = weight.grad if gradient is None else gradient
            if gradient is not None and weight.requires_grad:
                own = _own_part(chunk, weight, gradient)
                self._add(place, 3, (own.numel(), *_sums(own)))

    def add_updates(self) -> None:
        """Adds what has changed since the copy was made, and lets go of it."""
        for chunk, place, weight in self._weights():
            before = self._before.pop(place)
            update = torch.linalg.vector_norm(_own_weights(chunk, weight) - before, dtype=torch.float64).square()
            self._add(place, 6, (update, before.numel()))

    def statistics(self, sums: np.ndarray, unscale: float = 1.0) -> dict[str, WeightStatistics]:
        """By name, from sums of the shape of `self.sums` that were added over all ranks.

        Args:
            unscale: factor on the gradients.
        """
        rows = sums.reshape(self.sums.shape)
        rows[..., 4:6] *= (unscale, unscale**2)
        return {name: WeightStatistics.from_sums(rows[at]) for at, name in enumerate(self.names)}

    def _weights(self) -> Any:
        """(chunk, (name, layer number), parameter) of what this rank counts."""
        for chunk in self._chunks:
            for layer in transformer_layers(chunk):
                for name, weight in layer.named_parameters():
                    if param_is_not_tensor_parallel_duplicate(weight):
                        yield chunk, (name, layer.layer_number), weight

    def _add(self, place: tuple[str, int], first: int, values: tuple[Any, ...]) -> None:
        row = self.sums[self.names.index(place[0]), place[1] - 1]
        for offset, value in enumerate(values):
            row[first + offset] += value


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares, float64."""
    return x.sum(dtype=torch.float64), torch.linalg.vector_norm(x, dtype=torch.float64).square()


def _own_weights(chunk: Any, weight: Any) -> Tensor:
    """What this data-parallel rank counts of a weight, flat: of the optimizer's fp32 copy where there is one, whose
    updates are not lost to rounding."""
    main = getattr(weight, "main_param", None)
    if main is None:
        return _own_part(chunk, weight, weight)
    return main.detach().reshape(-1) if getattr(weight, "main_param_sharded", False) else _own_part(chunk, weight, main)


def _own_part(chunk: Any, weight: Any, tensor: Tensor) -> Tensor:
    """The elements of a weight, or of its gradient, that this data-parallel rank counts, flat.

    Under the distributed optimizer a rank holds the reduced gradient, and updates the weight, in its own range of
    the bucket alone; otherwise the first data-parallel rank counts all of it.
    """
    flat = tensor.detach().reshape(-1)
    rank, size = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    if not isinstance(chunk, DistributedDataParallel) or not chunk.ddp_config.use_distributed_optimizer:
        return flat if rank == 0 else flat[:0]
    for buffer in chunk.buffers:
        if weight in buffer.param_index_map:
            start, end, bucket_id = buffer.param_index_map[weight]
            bucket = buffer.buckets[bucket_id]
            share = bucket.grad_data.numel() // size
            first = bucket.offset + rank * share
            return flat[max(start, first) - start : max(min(end, first + share), start) - start]
    return flat if rank == 0 else flat[:0]  # a frozen weight is in no buffer
