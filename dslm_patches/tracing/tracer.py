"""Hooks that measure a model's activations and gradients during a training step, exactly, whatever the layout."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.utils import unwrap_model
from torch import Tensor

from dslm_patches.tracing.names import DIRECTIONS, layers_of, tensor_names
from dslm_patches.tracing.record import Site, SiteStatistics, TraceRecord, WeightStatistics
from dslm_patches.tracing.sites import Probe, probes, refuse_what_is_not_covered
from dslm_patches.tracing.skipping import SkipsSite
from dslm_patches.tracing.sums import FIELDS, TOKEN_SQUARES, element_sums, token_sums
from dslm_patches.tracing.weights import WeightSums

ACTIVATION, GRADIENT = range(len(DIRECTIONS))


class Tracer:
    """Measures a megatron-core model, this rank's chunks of it, in the steps between `start` and `collect`.

        tracer = Tracer(chunks, sites=("layer", "attention", "weights"))
        tracer.start()
        forward_backward(...)        # any schedule, any number of micro-batches
        tracer.gradients_ready()     # only for the site "weights"
        optimizer.step()
        record = tracer.collect()    # the same on all ranks

    Statistics are over the whole global batch, padding included: micro-batches, data-parallel ranks, shards of a
    sequence, of the vocabulary and of the heads add up, replicated tensors count once, and a recomputed forward does
    not count again. Gradients are those of the mean loss of the global batch, the loss scale taken out. Between steps
    a hook costs one test, nothing is communicated and nothing is read from the device. A traced step ends with one
    packed sum and one packed maximum over all ranks; under sequence parallelism the sums over tokens, whose squares do
    not add up over the shards of a sequence, are added over the tensor-parallel group first, and kept until then: 8
    bytes a sequence, feature and tensor. The site "weights" keeps a copy of this rank's part of the weights during a
    traced step, for their updates.

    Args:
        chunks: model chunks of this rank, wrapped or not, one a virtual pipeline stage.
        sites: of `dslm_patches.tracing.names.SITES`.
        num_layers: layers of the whole model; as the configuration says by default.

    Raises:
        ValueError: an unknown site, one that the model does not have, or a mode that is not covered, by its name.
    """

    def __init__(self, chunks: Sequence[Any], sites: Sequence[str] = ("layer",), *, num_layers: int | None = None):
        models = [unwrap_model(chunk) for chunk in chunks]
        refuse_what_is_not_covered(chunks, models)
        self._config = models[0].config
        self._num_layers = num_layers or self._config.num_layers
        self._names = tensor_names(sites)
        places = [(name, layer) for name in self._names for layer in layers_of(name, self._num_layers)]
        self._index = {place: number for number, place in enumerate(places)}
        device = next(models[0].parameters()).device
        self._sums = torch.zeros(2, len(places), len(FIELDS), dtype=torch.float64, device=device)
        self._maxima = torch.zeros(2, len(places), dtype=torch.float64, device=device)
        self._token_sums: list[tuple[int, int, Tensor]] = []
        self._weights = WeightSums(chunks, self._num_layers) if "weights" in sites else None
        self._active = False
        self._scale = 1.0
        modules = [module for model in models for module in model.modules()]
        self._skipping = [one for one in modules if isinstance(one, SkipsSite) and one.skips_site in self._names]
        found = [probe for model in models for probe in probes(model, self._names)]
        self._handles = [self._hook(probe) for probe in found]

    def start(self) -> None:
        """Measures from here on, until `collect`."""
        self._sums.zero_()
        self._maxima.zero_()
        self._token_sums.clear()
        self._scale = self._gradient_scale()  # the optimizer's step may change the loss scale
        if self._weights is not None:
            self._weights.start()
            self._weights.add_weights(keep=True)
        self._active = True
        for module in self._skipping:
            module.in_full = True

    def gradients_ready(self) -> None:
        """Takes the weights' gradients, between the backward pass and the optimizer's step."""
        if self._active and self._weights is not None:
            self._weights.add_gradients()

    def collect(self, iteration: int = 0) -> TraceRecord:
        """Stops measuring; the statistics of all places, the same on all ranks. Call it on all ranks."""
        self._active = False
        for module in self._skipping:
            module.in_full = False
        self._add_token_squares()
        packed = [self._sums.flatten()]
        if self._weights is not None:
            self._weights.add_updates()
            packed.append(self._weights.sums.flatten())
        sums = torch.cat(packed)
        # NaN does not survive every maximum, infinity does.
        maxima = self._maxima.nan_to_num(nan=float("inf"), posinf=float("inf"))
        torch.distributed.all_reduce(sums)
        torch.distributed.all_reduce(maxima, op=torch.distributed.ReduceOp.MAX)
        measured, of_weights = np.split(sums.cpu().numpy(), [self._sums.numel()])
        scale = self._scale
        rows, largest = measured.reshape(self._sums.shape), maxima.cpu().numpy()
        rows[GRADIENT] *= np.array([1.0, scale, scale**2, scale**2, 1.0, 1.0])
        largest[GRADIENT] *= scale
        return TraceRecord(iteration, self._sites(rows, largest), self._weight_statistics(of_weights, scale))

    def remove(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _sites(self, sums: np.ndarray, maxima: np.ndarray) -> dict[str, Site]:
        sites = {}
        for name in self._names:
            layers = layers_of(name, self._num_layers)
            at = [self._index[name, layer] for layer in layers]
            ways = (SiteStatistics.from_sums(sums[way, at], maxima[way, at]) for way in (ACTIVATION, GRADIENT))
            sites[name] = Site(layers, *ways)
        return sites

    def _weight_statistics(self, sums: np.ndarray, scale: float) -> dict[str, WeightStatistics]:
        if self._weights is None:
            return {}
        # The weights' gradients are averaged over the data-parallel ranks already; the loss scale is still in them.
        return self._weights.statistics(sums, scale * parallel_state.get_data_parallel_world_size())

    def _gradient_scale(self) -> float:
        """What turns a gradient of this rank's scaled loss into one of the global batch's mean loss."""
        loss_scale = 1.0
        if self._config.grad_scale_func is not None:
            loss_scale = float(self._config.grad_scale_func(torch.ones(1, device=self._sums.device)))
        return 1.0 / (loss_scale * parallel_state.get_data_parallel_world_size())

    def _hook(self, probe: Probe) -> Any:
        if probe.read_input is not None:
            return probe.module.register_forward_pre_hook(partial(self._on_input, probe))
        return probe.module.register_forward_hook(partial(self._on_output, probe))

    def _on_output(self, probe: Probe, _module: Any, _inputs: Any, output: Any) -> None:
        if self._active:
            tensor, bias = output[:2] if isinstance(output, tuple) else (output, None)
            # A branch leaves its bias to the residual add; a layer's second output is its context.
            bias = bias if probe.name in ("attention", "ffn", "head") else None
            self._observe(probe, tensor, None, bias)

    def _on_input(self, probe: Probe, module: Any, inputs: Any) -> None:
        if self._active:
            assert probe.read_input is not None
            self._observe(probe, *probe.read_input(module, inputs), None)

    def _observe(self, probe: Probe, x: Tensor, counted: Tensor | None, bias: Tensor | None) -> None:
        if not (probe.sharded or self._config.sequence_parallel or _first_tensor_rank()):
            return  # all tensor-parallel ranks hold the same tensor: the first one counts it
        layer = layers_of(probe.name, self._num_layers)[0] if probe.layer is None else probe.layer.layer_number
        place = self._index[probe.name, layer]
        if not _in_backward():  # there, a forward recomputes activations that were counted already
            activation = x.detach() if bias is None else x.detach() + bias.detach()
            self._measure(ACTIVATION, place, activation, counted, probe.sharded)
        # megatron-core's residual add turns gradients on even where a checkpointed forward has them off.
        if x.requires_grad and torch.is_grad_enabled():
            # megatron-core masks logits in place, which cuts a view's own hook off; its base's stays.
            source = x if x._base is None or probe.read_input is None else x._base
            shape = x.shape  # a hook that held x would keep x, and the graph behind it, for ever
            source.register_hook(lambda g: self._measure(GRADIENT, place, g.view(shape), counted, probe.sharded))

    @torch.no_grad()
    def _measure(self, way: int, place: int, x: Tensor, counted: Tensor | None, sharded: bool) -> None:
        if not self._active:
            return
        if x.dim() == 3:
            shards = self._sequence_shards(sharded)
            row, largest, tokens = token_sums(x, shards)
            if shards == 1:
                row[TOKEN_SQUARES] = tokens.square().sum()
            else:
                self._token_sums.append((way, place, tokens))
        else:
            row, largest = element_sums(x, counted)
        self._sums[way, place] += row
        held = self._maxima[way, place]
        torch.maximum(held, largest, out=held)

    def _sequence_shards(self, sharded: bool) -> int:
        if sharded or not self._config.sequence_parallel:
            return 1
        return parallel_state.get_tensor_model_parallel_world_size()

    def _add_token_squares(self) -> None:
        """Under sequence parallelism: adds the token sums of the shards up and squares them, on the first rank."""
        if not self._token_sums:
            return
        packed = torch.cat([tokens.flatten() for _, _, tokens in self._token_sums])
        torch.distributed.all_reduce(packed, group=parallel_state.get_tensor_model_parallel_group())
        if _first_tensor_rank():
            sizes = [tokens.numel() for _, _, tokens in self._token_sums]
            for (way, place, _), whole in zip(self._token_sums, packed.split(sizes), strict=True):
                self._sums[way, place, TOKEN_SQUARES] += whole.square().sum()
        self._token_sums.clear()


def _first_tensor_rank() -> bool:
    return parallel_state.get_tensor_model_parallel_rank() == 0


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1
