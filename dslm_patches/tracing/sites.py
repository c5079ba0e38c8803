"""Where a megatron-core model can be measured, and which models are refused because they would be measured wrongly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from dslm_patches.errors import UserError


@dataclass(frozen=True)
class Probe:
    """A module whose output, or first input, is measured.

    Attributes:
        name: one of `dslm_patches.tracing.names.COMPUTED`.
        module: carries the hook.
        layer: the transformer layer it belongs to, whose number is read when it runs; None outside the layers.
        sharded: every tensor-parallel rank holds another part of the features (or heads), whole sequences of it.
            Otherwise the tensor lies along the residual stream: whole on each of these ranks, or a part of the
            tokens under sequence parallelism.
        read_input: measure before the module runs what this reads of (module, inputs): a tensor, and True where an
            element counts (None: all do). None measures the module's output, its bias added.
    """

    name: str
    module: Any
    layer: Any = None
    sharded: bool = False
    read_input: Callable[[Any, tuple[Any, ...]], tuple[Tensor, Tensor | None]] | None = None


def transformer_layers(chunk: nn.Module) -> Iterator[TransformerLayer]:
    """The transformer layers of a model chunk."""
    return (module for module in chunk.modules() if isinstance(module, TransformerLayer))


def probes(model: Any, names: Sequence[str]) -> Iterator[Probe]:
    """The probes of an unwrapped model chunk.

    Raises:
        UserError: a site that this model does not have as a module of its own.
    """
    for layer in transformer_layers(model):
        for probe in _layer_probes(layer):
            if probe.name in names:
                _check_probe(probe)
                yield probe
    once = {
        "embeddings": getattr(model, "embedding", None) if getattr(model, "pre_process", False) else None,
        "final_norm": getattr(_block(model), "final_layernorm", None),
        "head": getattr(model, "output_layer", None) if getattr(model, "post_process", False) else None,
    }
    for name, module in once.items():
        if name in names and module is not None:
            if getattr(module, "gather_output", False):
                raise UserError("--trace-sites head: logits gathered over the tensor-parallel ranks are not covered")
            yield Probe(name, module, sharded=name == "head")


def _block(model: Any) -> Any:
    decoder = getattr(model, "decoder", None)
    return getattr(model, "encoder", None) if decoder is None else decoder


def _block_layers(model: Any) -> Iterator[Any]:
    return iter(getattr(_block(model), "layers", ()))


def _has_transformer_layer(layer: Any) -> bool:
    return next(transformer_layers(layer), None) is not None


def _layer_probes(layer: Any) -> Iterator[Probe]:
    yield Probe("attention_norm", layer.input_layernorm, layer)
    core = getattr(layer.self_attention, "core_attention", None)
    softmax = getattr(core, "scale_mask_softmax", None)
    yield Probe("logits", softmax, layer, sharded=True, read_input=_unmasked_logits)
    yield Probe("attention", layer.self_attention, layer)
    yield Probe("ffn_norm", layer.pre_mlp_layernorm, layer)
    yield Probe("ffn", layer.mlp, layer)
    yield Probe("layer", layer, layer)


def _check_probe(probe: Probe) -> None:
    if getattr(probe.module, "window_size", None) is not None:
        raise UserError("--trace-sites logits: sliding-window attention is not covered; leave logits out")
    if isinstance(probe.module, IdentityOp):
        raise UserError(
            "--trace-sites norms: Transformer Engine fuses each LayerNorm into the linear after it, so its output "
            "cannot be seen; use --transformer-impl local, or leave norms out"
        )
    if probe.module is None:
        raise UserError(
            "--trace-sites logits: fused attention has no logits to see; use --transformer-impl local, or leave logits "
            "out"
        )


def _unmasked_logits(module: Any, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """Logits [b, heads, queries, keys] on their way into megatron-core's softmax, and which of them count."""
    logits, masked = inputs[0], inputs[1] if len(inputs) > 1 else None
    if masked is None and module.attn_mask_type == AttnMaskType.causal and logits.size(-2) > 1:
        masked = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    return logits, None if masked is None else ~masked


_ONE = DistributedDataParallelConfig()
_REFUSED_CONFIG = {
    "context_parallel_size": ("context parallelism", 1),
    "num_moe_experts": ("mixture of experts", None),
    "mtp_num_layers": ("multi-token prediction", None),
    "calculate_per_token_loss": ("calculate_per_token_loss", False),
    "enable_cuda_graph": ("CUDA graphs (enable_cuda_graph)", False),
    "external_cuda_graph": ("CUDA graphs (external_cuda_graph)", False),
    "cuda_graph_impl": ("CUDA graphs (cuda_graph_impl)", "none"),
    "cpu_offloading": ("cpu_offloading", False),
    "fine_grained_activation_offloading": ("fine_grained_activation_offloading", False),
    "heterogeneous_block_specs": ("heterogeneous layers", False),
    "delay_wgrad_compute": ("delay_wgrad_compute", False),
    "fp8": ("fp8", None),
    "fp4": ("fp4", None),
    "apply_query_key_layer_scaling": ("apply_query_key_layer_scaling", False),
}


def refuse_what_is_not_covered(chunks: Sequence[Any], models: Sequence[Any]) -> None:
    """Raises UserError that names the mode in which a model would not be measured rightly.

    Args:
        chunks: model chunks, wrapped or not.
        models: the same, unwrapped.
    """
    for feature in _not_covered(chunks, models):
        raise UserError(f"tracing does not cover {feature}: turn it off, or the tracing (--trace-interval 0)")


def _not_covered(chunks: Sequence[Any], models: Sequence[Any]) -> Iterator[str]:
    config = models[0].config
    for name, (feature, off) in _REFUSED_CONFIG.items():
        value = getattr(config, name, off)
        if value != off and value not in (None, False, 0):
            yield feature
    if parallel_state.get_context_parallel_world_size() > 1:
        yield "context parallelism"
    if any("FullyShardedDataParallel" in type(chunk).__name__ for chunk in chunks):
        yield "fully sharded data parallelism"
    if any(getattr(chunk, "ddp_config", _ONE).num_distributed_optimizer_instances > 1 for chunk in chunks):
        yield "several instances of the distributed optimizer"
    if not all(_has_transformer_layer(layer) for model in models for layer in _block_layers(model)):
        yield "layers that are no transformer layers"
    if any(getattr(model, "encoder", None) is not None and hasattr(model, "decoder") for model in models):
        yield "encoder-decoder models, whose layers share numbers"
