"""What ranks of the pool run for tests of the tracer, and statistics by hand to hold it against."""

import gc
import math
from typing import Any

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer
from megatron.core.utils import unwrap_model

from dslm_patches.tracing import Tracer
from dslm_patches.tracing.skipping import SkipsSite
from megatron.dslm.arguments import parse_args
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.initialize import initialize_model_parallel
from megatron.dslm.models.build import build_chunks
from megatron.dslm.models.family import family
from megatron.dslm.training import profile as profiling
from tests.distributed.trainer_workers import make_trainer, trainer_of

ALL_SITES = ("layer", "attention", "ffn", "norms", "logits", "embeddings", "head", "weights")


def trace(argv: list[str], model: str, sites: tuple[str, ...] = ALL_SITES, steps: int = 1) -> dict[str, Any]:
    """The last of some training steps, traced, as JSON."""
    _, trainer, iterators = make_trainer(argv, model)
    tracer = Tracer(trainer.chunks, sites)
    for _ in range(steps):
        tracer.start()
        trainer.step(iterators, tracer.gradients_ready)
        record = tracer.collect(1)
    return record.as_json()


def trace_with_loss_scale(argv: list[str], model: str, scale: float) -> dict[str, Any]:
    """The same with a loss that is scaled up, as fp16 training does, and gradients that the optimizer would unscale."""
    _, trainer, iterators = make_trainer(argv, model)
    scales = [scale]
    for chunk in trainer.chunks:
        unwrap_model(chunk).config.grad_scale_func = lambda loss: loss * scales[-1]
    tracer = Tracer(trainer.chunks, ALL_SITES)
    tracer.start()
    trainer.step(iterators, tracer.gradients_ready)
    scales.append(2.0 * scale)  # as a dynamic scaler may, in the optimizer's step
    return tracer.collect(1).as_json()


def by_hand(argv: list[str], model: str) -> dict[str, Any]:
    """The same of one rank's run, from whole tensors of the batch kept in float64 and every pair of tokens.

    Of all sites, activations and gradients (of logits, the activations), and of the weights, gradients and updates.
    """
    _, trainer, iterators = make_trainer(argv, model)
    kept: dict[tuple[str, str, int], list[torch.Tensor]] = {}

    def keep_logits(number: int) -> Any:
        def hook(_module: Any, inputs: Any, _output: Any) -> None:
            logits = inputs[0].detach().double()  # masked in place by now
            kept.setdefault(("activation", "logits", number), []).append(logits[logits != -10000.0])

        return hook

    def keep(name: str, number: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            tensor, bias = output if isinstance(output, tuple) else (output, None)
            value = tensor.detach() if bias is None or name == "layer" else tensor.detach() + bias.detach()
            kept.setdefault(("activation", name, number), []).append(value.double())
            tensor.register_hook(lambda g: kept.setdefault(("gradient", name, number), []).append(g.double()))

        return hook

    layers = [module for module in trainer.chunks[0].modules() if isinstance(module, TransformerLayer)]
    for layer in layers:
        modules = {
            "attention": layer.self_attention,
            "ffn": layer.mlp,
            "attention_norm": layer.input_layernorm,
            "ffn_norm": layer.pre_mlp_layernorm,
            "layer": layer,
        }
        for name, module in modules.items():
            module.register_forward_hook(keep(name, layer.layer_number))
        layer.self_attention.core_attention.scale_mask_softmax.register_forward_hook(keep_logits(layer.layer_number))
    model_ = unwrap_model(trainer.chunks[0])
    block = model_.encoder if model == "bert" else model_.decoder
    model_.embedding.register_forward_hook(keep("embeddings", 0))
    block.final_layernorm.register_forward_hook(keep("final_norm", len(layers) + 1))
    model_.output_layer.register_forward_hook(keep("head", len(layers) + 1))
    for module in model_.modules():
        if isinstance(module, SkipsSite):
            module.in_full = True  # as the tracer makes it
    before = [{n: p.detach().double() for n, p in layer.named_parameters()} for layer in layers]
    before = [{n: p.clone() for n, p in weights.items()} for weights in before]
    gradients: list[dict[str, torch.Tensor]] = []
    trainer.step(
        iterators,
        lambda: gradients.extend({n: p.main_grad.double().clone() for n, p in a.named_parameters()} for a in layers),
    )
    after = [{n: p.detach().double() for n, p in layer.named_parameters()} for layer in layers]
    statistics: dict[str, dict[str, list[dict[str, float]]]] = {}
    for way, name, layer in sorted(kept, key=lambda key: key[2]):
        parts = kept[way, name, layer]
        found = elements_of(torch.cat(parts)) if name == "logits" else statistics_of(torch.cat(parts, dim=1))
        statistics.setdefault(name, {}).setdefault(way, []).append(found)
    weights = {
        name: {
            "norm": [w[name].norm().item() for w in before],
            "variance": [w[name].var(correction=0).item() for w in before],
            "gradient_norm": [g[name].norm().item() for g in gradients],
            "gradient_variance": [g[name].var(correction=0).item() for g in gradients],
            "update_ratio": [
                ((new[name] - old[name]).norm() / old[name].norm()).item() if old[name].any() else math.nan
                for new, old in zip(after, before, strict=True)
            ],
        }
        for name in before[0]
    }
    return {"sites": statistics, "weights": weights}


def elements_of(x: torch.Tensor) -> dict[str, float]:
    """All statistics of elements that are no tokens, in float64."""
    x = x.double()
    return {
        "mean": x.mean().item(),
        "variance": x.var(correction=0).item(),
        "rms": x.square().mean().sqrt().item(),
        "absolute_maximum": x.abs().max().item(),
        "correlation": math.nan,
        "non_finite": float((~x.isfinite()).sum().item()),
        "count": float(x.numel()),
    }


def statistics_of(x: torch.Tensor) -> dict[str, float]:
    """All statistics of hidden states [s, b, h] in float64, the correlation from every pair of tokens."""
    x = x.double()
    variance = x.var(correction=0)
    centred = (x - x.mean()).transpose(0, 1)  # [b, s, h]
    products = centred @ centred.transpose(1, 2) / x.size(2)  # [b, s, s]
    tokens = x.size(0)
    different = ~torch.eye(tokens, dtype=torch.bool)
    return elements_of(x) | {"correlation": (products[:, different].mean() / variance).item()}


def count_communication(argv: list[str], model: str) -> dict[str, Any]:
    """Collectives and reads of single values in a step without a tracer, a step between traced ones, a traced one."""
    counts: dict[str, int] = {}
    originals = {name: getattr(torch.distributed, name) for name in COLLECTIVES}
    for name, original in originals.items():
        setattr(torch.distributed, name, _counted(counts, "collectives", original))
    reads = {name: getattr(torch.Tensor, name) for name in HOST_READS}
    for name, original in reads.items():
        setattr(torch.Tensor, name, _counted(counts, "reads", original))
    seen = {}
    try:
        _, trainer, iterators = make_trainer(argv, model)
        trainer.step(iterators)
        seen["untraced"] = _step(counts, lambda: trainer.step(iterators))
        tracer = Tracer(trainer.chunks, ALL_SITES)
        seen["off"] = _step(counts, lambda: trainer.step(iterators, tracer.gradients_ready))

        def traced() -> None:
            tracer.start()
            trainer.step(iterators, tracer.gradients_ready)
            tracer.collect()

        seen["traced"] = _step(counts, traced)
    finally:
        for name, original in originals.items():
            setattr(torch.distributed, name, original)
        for name, original in reads.items():
            setattr(torch.Tensor, name, original)
    return seen


COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "reduce_scatter")
COLLECTIVES += ("reduce_scatter_tensor", "all_to_all_single", "gather_object", "barrier")
HOST_READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__")


def _counted(counts: dict[str, int], kind: str, original: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        counts[kind] = counts.get(kind, 0) + 1
        return original(*args, **kwargs)

    return call


def _step(counts: dict[str, int], run: Any) -> dict[str, int]:
    counts.clear()
    run()
    return dict(counts)


def memory_of_steps(argv: list[str], model: str) -> list[int]:
    """Tensors that are alive after each of some traced steps."""
    _, trainer, iterators = make_trainer(argv, model)
    tracer = Tracer(trainer.chunks, ALL_SITES)
    alive = []
    for _ in range(3):
        tracer.start()
        trainer.step(iterators, tracer.gradients_ready)
        tracer.collect()
        gc.collect()
        alive.append(sum(isinstance(one, torch.Tensor) for one in gc.get_objects()))
    return alive


def trace_frozen(argv: list[str], model: str, frozen_layers: int) -> dict[str, Any]:
    """A step with frozen embeddings and bottom layers."""
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    module = family(model).model()
    chunks = build_chunks(args, module.provide_model)[0]
    for parameter in chunks[0].embedding.parameters():
        parameter.requires_grad_(False)
    for layer in chunks[0].decoder.layers[:frozen_layers]:
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
    trainer = trainer_of(args, module, chunks)
    tracer = Tracer(trainer.chunks, ("layer", "weights"))
    tracer.start()
    data = build_datasets(args, module.dataset(args))[0]
    trainer.step([batch_iterator(args, data, 0)], tracer.gradients_ready)
    return tracer.collect(1).as_json()


def trace_changed(argv: list[str], model: str, change: dict[str, Any]) -> None:
    """A tracer on a model whose configuration says something else."""
    _, trainer, _ = make_trainer(argv, model)
    ddp_config = trainer.chunks[0].ddp_config
    for name, value in change.items():
        setattr(ddp_config if hasattr(ddp_config, name) else unwrap_model(trainer.chunks[0]).config, name, value)
    Tracer(trainer.chunks)


def hooks_left(argv: list[str], model: str) -> int:
    """Forward hooks on the layers after the tracer took its own off."""
    _, trainer, _ = make_trainer(argv, model)
    tracer = Tracer(trainer.chunks, ALL_SITES)
    layers = [module for module in trainer.chunks[0].modules() if isinstance(module, TransformerLayer)]
    assert all(layer._forward_hooks for layer in layers)
    tracer.remove()
    modules = list(trainer.chunks[0].modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules) - heads_of_scheme(modules)


def heads_of_scheme(modules: list[Any]) -> int:
    """The depth scheme's own hook, which scales the head's input."""
    return sum(type(hook).__name__ == "_InputScale" for m in modules for hook in m._forward_pre_hooks.values())


def profile_of(argv: list[str], model: str, keep_every: int) -> dict[str, Any]:
    """What `dslm profile` measures, on running torch.distributed."""
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    args.trace_sites = list(ALL_SITES)
    profiling._keep_every = lambda _: keep_every
    scheme, record = profiling.run_profile(args, family(model).model(), lambda: None)
    assert len(scheme.layers) == args.num_layers
    return record.as_json()
