"""All layers of a model in the memory of one: each is drawn again from the seed when it is needed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from megatron.core.tensor_parallel.random import _get_all_rng_states, _set_all_rng_states
from torch import Tensor, nn

from dslm_patches.mcore.initialize import draw_weight
from dslm_patches.mcore.residual import scale_residuals
from dslm_patches.mcore.roles import ParameterRole, parameter_role
from dslm_patches.schemes import DepthScheme

DRAWING_THREADS = 2
"""Weights of a layer drawn at the same time: each has a generator of its own."""

Visit = Callable[[int], None]


class LayerStream(nn.Module):
    """Takes the place of the one layer of a megatron-core BertModel or GPTModel and runs all layers of a scheme.

    Forward it keeps the input of every `keep_every`-th layer; backward it goes down again, runs the layers between
    from there, and draws each layer's weights once more. Dropout repeats itself. Outputs and gradients equal those of
    the model built whole. Hooks on the layer see every layer, with its number in `layer_number`.

    Build it after `apply_scheme`, on one rank. Weights are those of initialisation: there is nothing to train.

    Args:
        model: built with one layer.
        scheme: of all layers.
        seed: of the weights, as given to `apply_scheme`.
        keep_every: 1 keeps every layer's input, 4 s b h bytes each in fp32; a larger number keeps fewer and runs each
            layer forward twice in the backward pass.
        before: called with a layer's number when its weights are there, in the forward pass.
        after: called with a layer's number when its weights have their gradients, in `.grad`.

    Raises:
        ValueError: a model with more than one layer.
    """

    def __init__(
        self, model: Any, scheme: DepthScheme, seed: int, *, keep_every: int = 1, before: Visit, after: Visit
    ) -> None:
        super().__init__()
        name, block = next(
            (n, getattr(model, n)) for n in ("encoder", "decoder") if getattr(model, n, None) is not None
        )
        if len(block.layers) != 1:
            raise ValueError(f"a layer stream takes the place of one layer, not of {len(block.layers)}")
        self.layer: Any = block.layers[0]
        self._weights = [
            (parameter, _role(model, f"{name}.layers.0.{tail}", parameter))
            for tail, parameter in self.layer.named_parameters()
            if parameter.dim() == 2
        ]
        self._scheme, self._seed, self._keep_every = scheme, seed, keep_every
        self._before, self._after = before, after
        self._threads = ThreadPoolExecutor(DRAWING_THREADS)
        block.layers[0] = self

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        """Hidden states [s, b, h] through all layers; keyword arguments as the layer takes them."""
        kwargs.pop("context", None)
        return _AllLayers.apply(hidden_states, self, kwargs), None

    def load(self, number: int) -> None:
        """Makes the layer the model's layer `number`, from 1."""
        self.layer.layer_number = number
        scale_residuals(self.layer, self._scheme.layers[number - 1])
        list(self._threads.map(lambda one: self._draw(one[0], one[1], number), self._weights))

    @torch.no_grad()
    def _draw(self, parameter: Tensor, role: ParameterRole, number: int) -> None:
        shape = (parameter.size(0), parameter.size(1))
        parameter.copy_(draw_weight(role.at_layer(number), shape, self._scheme, self._seed))

    def run_forward(self, x: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[int, Tensor], list[Any]]:
        """The output, the kept inputs by layer number, and every layer's random states."""
        kept: dict[int, Tensor] = {}
        states: list[Any] = []
        for number in range(1, len(self._scheme.layers) + 1):
            if (number - 1) % self._keep_every == 0:
                kept[number] = x
            states.append(_get_all_rng_states())
            self.load(number)
            self._before(number)
            # Without gradients, yet megatron-core's residual add turns them on and would keep the graph of all layers.
            x = self.layer(hidden_states=x, **kwargs)[0].detach()
        return x, kept, states

    def run_backward(self, gradient: Tensor, kwargs: Any, kept: dict[int, Tensor], states: list[Any]) -> Tensor:
        """The gradient at the first layer's input."""
        final_states = _get_all_rng_states()
        for first in sorted(kept, reverse=True):
            inputs = [kept.pop(first)]
            last = min(first + self._keep_every - 1, len(self._scheme.layers))
            for number in range(first, last):
                self._reload(number, states)
                with torch.no_grad():
                    inputs.append(self.layer(hidden_states=inputs[-1], **kwargs)[0].detach())
            for number in range(last, first - 1, -1):
                self._reload(number, states)
                x = inputs.pop().detach().requires_grad_()
                with torch.enable_grad():
                    output = self.layer(hidden_states=x, **kwargs)[0]
                torch.autograd.backward(output, gradient)
                assert x.grad is not None
                gradient = x.grad
                self._after(number)
                self.layer.zero_grad(set_to_none=True)
        _set_all_rng_states(*final_states)
        return gradient

    def _reload(self, number: int, states: list[Any]) -> None:
        self.load(number)
        cpu, cuda, tracker = states[number - 1]
        _set_all_rng_states(cpu, cuda, dict(tracker))  # the tracker writes into what it is given


class _AllLayers(torch.autograd.Function):
    """The stream as one operation, like a checkpointed function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stream: LayerStream, kwargs: dict[str, Any]) -> Tensor:
        ctx.stream, ctx.kwargs = stream, kwargs
        output, ctx.kept, ctx.states = stream.run_forward(x.detach(), kwargs)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.stream.run_backward(gradients[0], ctx.kwargs, ctx.kept, ctx.states), None, None


def _role(model: Any, name: str, parameter: Tensor) -> ParameterRole:
    role = parameter_role(model, name, parameter.size(0))
    if role is None:
        raise ValueError(f"no rule to draw the parameter {name}")
    return role
