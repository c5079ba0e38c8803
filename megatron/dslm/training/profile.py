"""The profile of a model at initialisation, of any depth, in the memory of a few layers."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from dslm_patches.mcore import apply_scheme, use_cpu_kernels_around_layers
from dslm_patches.mcore.layer_stream import LayerStream
from dslm_patches.schemes import DepthScheme, build_scheme
from dslm_patches.tracing import Tracer
from dslm_patches.tracing.record import TraceRecord
from dslm_patches.tracing.weights import WeightSums
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.initialize import initialize, seed_dropout, shut_down
from megatron.dslm.models.mcore_config import transformer_config, uses_cpu_kernels
from megatron.dslm.models.shape import shape_from_flags

KEPT_BYTES = 2 * 2**30
"""Inputs of layers that are kept at most; deeper models run the layers between kept ones forward twice."""


def profile(args: Namespace, model: Any, progress: Callable[[], None]) -> tuple[DepthScheme, TraceRecord]:
    """The scheme of a model, and what a tracer sees of its first micro-batch, forward and backward.

    The numbers are those of the trainer's first step on one rank with one micro-batch: same weights, data, dropout.

    Args:
        args: the trainer's, for one rank; without data_path the tokens are random.
        model: of `Family.model`.
        progress: called after each layer, forward and backward.
    """
    initialize(args)
    try:
        return run_profile(args, model, progress)
    finally:
        shut_down()


def run_profile(args: Namespace, model: Any, progress: Callable[[], None]) -> tuple[DepthScheme, TraceRecord]:
    """`profile` on process groups that are up."""
    scheme = build_scheme(args.depth_scheme, shape_from_flags(args, args.tokenizer.vocab_size), args.scheme_options)
    chunk = _one_layer_model(args, model)
    apply_scheme(chunk, replace(scheme, layers=scheme.layers[:1]), seed=args.seed)
    if uses_cpu_kernels(args):
        use_cpu_kernels_around_layers(chunk)
    device = torch.cuda.current_device()
    chunk.to(device)
    weights = WeightSums([chunk], args.num_layers) if "weights" in args.trace_sites else None
    if weights is None:
        for parameter in chunk.parameters():
            parameter.requires_grad_(False)
        # One weight at the bottom keeps the graph.
        chunk.embedding.word_embeddings.weight.requires_grad_(True)

    def before(_number: int) -> None:
        if weights is not None:
            weights.add_weights(keep=False)
        progress()

    def after(_number: int) -> None:
        if weights is not None:
            weights.add_gradients()
        progress()

    LayerStream(chunk, scheme, args.seed, keep_every=_keep_every(args), before=before, after=after)
    sites = [site for site in args.trace_sites if site != "weights"]
    tracer = Tracer([chunk], sites, num_layers=args.num_layers) if sites else None
    batch = _first_batch(args, model)
    seed_dropout(args.seed)
    if tracer is not None:
        tracer.start()
    output, loss_function = model.forward_step(iter([batch]), chunk)
    loss_function(output)[0].backward()
    measured = tracer.collect(1).sites if tracer is not None else {}
    rows = {} if weights is None else weights.statistics(weights.sums.cpu().numpy())
    return scheme, TraceRecord(1, measured, rows)


def _one_layer_model(args: Namespace, model: Any) -> Any:
    """The model of the arguments with one of its layers."""
    config = transformer_config(Namespace(**{**vars(args), "num_layers": 1}))
    config.gradient_accumulation_fusion = False  # it needs the data-parallel wrapper's gradient buffers
    chunk = model.provide_model(args, config, pre_process=True, post_process=True, vp_stage=None)
    return chunk.train()


def _first_batch(args: Namespace, model: Any) -> dict[str, Any]:
    if args.data_path is None and args.train_data_path is None:
        return model.random_batch(args, args.tokenizer.vocab_size)
    return next(batch_iterator(args, build_datasets(args, model.dataset(args))[0], 0))


def _keep_every(args: Namespace) -> int:
    """So many layers share a kept input that what is kept fits KEPT_BYTES."""
    one = 4 * args.seq_length * args.micro_batch_size * args.hidden_size
    return max(1, -(-args.num_layers * one // KEPT_BYTES))
