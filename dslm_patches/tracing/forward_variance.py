"""Forward variance of every layer's output over the whole global batch."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn


class ForwardVariance:
    """Hooks on every transformer layer of this rank's model chunks that measure its output's variance.

    Inactive hooks cost one test a layer. While active, each micro-batch's moments are merged into the layer's
    (count, mean, M2) on the device; `collect` adds up all ranks in one all-reduce.

    Args:
        chunks: this rank's model chunks, wrapped or not.
        num_layers: layers of the whole model.
    """

    def __init__(self, chunks: Sequence[nn.Module], num_layers: int) -> None:
        self._active = False
        self._num_layers = num_layers
        self._moments: dict[int, Tensor] = {}
        self._handles = [
            module.register_forward_hook(self._measure)
            for chunk in chunks
            for module in chunk.modules()
            if isinstance(module, TransformerLayer)
        ]

    def start(self) -> None:
        """Measures from here on, until `collect`."""
        self._moments.clear()
        self._active = True

    def collect(self) -> list[float]:
        """Stops measuring; the centred variance of each layer's output, from the bottom, the same on all ranks.

        Call it on all ranks. Replicated activations count once, shards of a sequence, of the batch and of
        the layers add up.
        """
        self._active = False
        device = torch.cuda.current_device()
        sums = torch.zeros(self._num_layers, 3, dtype=torch.float64, device=device)
        for layer_number, (count, mean, m2) in self._moments.items():
            sums[layer_number - 1] = torch.stack((count, count * mean, m2 + count * mean**2))
        torch.distributed.all_reduce(sums)
        count, total, squares = sums.unbind(dim=1)
        return ((squares - total**2 / count) / count).tolist()

    def remove(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _measure(self, module: Any, _inputs: Any, output: Any) -> None:
        if not self._active or _in_backward() or not _holds_own_part(module):
            return
        hidden_states = output[0] if isinstance(output, tuple) else output
        new = _moments(hidden_states.detach())
        held = self._moments.get(module.layer_number)
        self._moments[module.layer_number] = new if held is None else _merge(held, new)


def _in_backward() -> bool:
    """A forward that runs inside a backward pass recomputes activations that were counted already."""
    return torch._C._current_graph_task_id() != -1


def _holds_own_part(layer: Any) -> bool:
    """Without sequence parallelism all tensor-parallel ranks hold the same activations: one of them counts."""
    return layer.config.sequence_parallel or parallel_state.get_tensor_model_parallel_rank() == 0


def _moments(x: Tensor) -> Tensor:
    """(count, mean, sum of squared deviations) of all elements of x, in float64."""
    variance, mean = torch.var_mean(x.float(), correction=0)
    return torch.stack((torch.full_like(mean, x.numel()), mean, variance * x.numel())).double()


def _merge(a: Tensor, b: Tensor) -> Tensor:
    """Moments of the union of two sets, the squared distance of their means added (Chan et al.)."""
    count = a[0] + b[0]
    distance = b[1] - a[1]
    mean = a[1] + distance * b[0] / count
    return torch.stack((count, mean, a[2] + b[2] + distance**2 * a[0] * b[0] / count))
