"""Moments of every layer's output and of the gradient there, for one model on one rank."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerMoments:
    """One layer's output: variance and token correlation of the hidden states and of their gradient."""

    variance: float
    correlation: float
    gradient_variance: float
    gradient_correlation: float


def layer_moments(
    model: nn.Module, forward: Callable[[], Any], top_gradient: Callable[[Tensor], Tensor]
) -> list[LayerMoments]:
    """Runs a forward pass and a backward pass from the last layer's output, and measures every layer's output.

    Args:
        model: an unwrapped megatron-core model whose layers are all on this rank, without sequence parallelism.
        forward: runs the model.
        top_gradient: the gradient [s, b, h] to start from, for the last layer's output [s, b, h].

    Returns:
        One entry a layer, from the bottom.
    """
    outputs: dict[int, Tensor] = {}

    def keep(layer: Any, _inputs: Any, output: Any) -> None:
        hidden_states = output[0] if isinstance(output, tuple) else output
        hidden_states.retain_grad()
        outputs[layer.layer_number] = hidden_states

    handles = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, TransformerLayer)]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    last = outputs[max(outputs)]
    last.backward(top_gradient(last.detach()))
    return [
        LayerMoments(*_moments(outputs[number].detach()), *_moments(outputs[number].grad)) for number in sorted(outputs)
    ]


def _moments(x: Tensor | None) -> tuple[float, float]:
    """Variance over all elements of [s, b, h], and token correlation.

    The correlation is the mean product of different tokens over the mean square, from sums over each sequence's
    tokens, in float64.
    """
    assert x is not None
    x = x.double()
    tokens = x.shape[0]
    square = x.square().sum()
    between = (x.sum(dim=0).square().sum() - square) / (tokens - 1)
    return x.var(correction=0).item(), (between / square).item()
