"""Builds this rank's model chunks with their depth scheme, ready to train."""

from argparse import Namespace
from typing import Any, Literal

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.enums import ModelType
from megatron.core.transformer import ModuleSpec
from megatron.core.transformer.module import Float16Module

from dslm_patches.mcore import apply_scheme, layer_spec, model_shape, use_cpu_kernels_around_layers, with_cpu_kernels
from dslm_patches.schemes import DepthScheme, build_scheme
from megatron.dslm.distributed.initialize import seed_dropout
from megatron.dslm.models.family import ModelProvider
from megatron.dslm.models.mcore_config import ddp_config, transformer_config, transformer_impl, uses_cpu_kernels
from megatron.dslm.models.shape import padded_size


def padded_vocab_size(args: Namespace) -> int:
    """The rows of the embedding table and of the logits."""
    return padded_size(args.tokenizer.vocab_size, args.make_vocab_size_divisible_by, args.tensor_model_parallel_size)


def layers_to_build(args: Namespace, model: Literal["bert", "gpt"]) -> ModuleSpec:
    """The layer spec of a model: whose layers, where their LayerNorms stand, and by which operations they compute."""
    spec = layer_spec(model, transformer_impl(args), args.norm_placement)
    return with_cpu_kernels(spec) if uses_cpu_kernels(args) else spec


def build_chunks(args: Namespace, provider: ModelProvider, *, initialize: bool = True) -> tuple[list[Any], DepthScheme]:
    """This rank's unwrapped model chunks, one a virtual pipeline stage, and the scheme that was put on them.

    Args:
        initialize: draw the weights; False when a checkpoint is about to fill them.
    """
    config = transformer_config(args)
    virtual = args.virtual_pipeline_model_parallel_size
    chunks = []
    for stage in range(virtual or 1):
        vp_stage = stage if virtual else None
        chunk = provider(
            args,
            config,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            vp_stage=vp_stage,
        )
        chunk.model_type = ModelType.encoder_or_decoder
        chunk.vp_stage = vp_stage
        chunks.append(chunk)
    shape = model_shape(chunks[0], seq_length=args.seq_length, input_correlation=args.dslm_input_correlation)
    scheme = build_scheme(args.depth_scheme, shape, args.scheme_options)
    for chunk in chunks:
        apply_scheme(chunk, scheme, seed=args.seed, initialize=initialize)
        if uses_cpu_kernels(args):
            use_cpu_kernels_around_layers(chunk)
        chunk.to(torch.cuda.current_device())
    # torch's modules drew weights of their own when they were built: dropout begins the same whatever was built.
    seed_dropout(args.seed)
    return chunks, scheme


def wrap_chunks(args: Namespace, chunks: list[Any]) -> list[Any]:
    """The chunks in megatron-core's mixed-precision and data-parallel wrappers."""
    config = chunks[0].config
    if args.bf16:
        chunks = [Float16Module(config, chunk) for chunk in chunks]
    return [
        DistributedDataParallel(
            config,
            ddp_config(args),
            chunk,
            # Buckets let the first chunk's gradients reduce while backward goes on; others have no more to hide.
            disable_bucketing=index > 0 or not args.overlap_grad_reduce,
        )
        for index, chunk in enumerate(chunks)
    ]
