"""The summary a run prints before it trains: model, layout, data, depth scheme."""

from argparse import Namespace
from textwrap import fill
from typing import Any

import torch
from megatron.core import __version__ as megatron_core_version
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared

from dslm_patches.schemes import DepthScheme, WeightRole
from dslm_patches.schemes.table import scheme_table
from megatron.dslm.data.baselines import Baselines
from megatron.dslm.models.build import padded_vocab_size
from megatron.dslm.models.family import family
from megatron.dslm.models.mcore_config import transformer_impl, uses_cpu_kernels
from megatron.dslm.models.sections import as_flags


def count_parameters(chunks: list[Any]) -> int:
    """Parameters of the whole model, each counted once; call it on all ranks."""
    own = sum(
        parameter.numel()
        for chunk in chunks
        for parameter in chunk.parameters()
        if param_is_not_shared(parameter) and param_is_not_tensor_parallel_duplicate(parameter)
    )
    total = torch.tensor([own], dtype=torch.int64, device=torch.cuda.current_device())
    torch.distributed.all_reduce(total, group=parallel_state.get_model_parallel_group())
    return int(total)


def body_roles(args: Namespace) -> list[WeightRole]:
    """The weight roles of embeddings and layers that a model of these arguments has, from the bottom up."""
    roles = [WeightRole.WORD_EMBEDDING]
    if args.position_embedding_type == "learned_absolute":
        roles.append(WeightRole.POSITION_EMBEDDING)
    if family(args.model).has_segments(args):
        roles.append(WeightRole.TOKENTYPE_EMBEDDING)
    roles += [WeightRole.QUERY, WeightRole.KEY, WeightRole.VALUE, WeightRole.ATTENTION_OUTPUT]
    return [*roles, WeightRole.FFN_UP, WeightRole.FFN_DOWN]


def model_roles(args: Namespace) -> list[WeightRole]:
    """The weight roles that a pretrained model of these arguments has, from the bottom up."""
    output = [WeightRole.OUTPUT] if args.untie_embeddings_and_output_weights else []
    return [*body_roles(args), *family(args.model).head_roles(args), *output]


def print_summary(
    args: Namespace,
    chunks: list[Any],
    scheme: DepthScheme,
    roles: list[WeightRole],
    samples: dict[str, int],
    counted: Baselines | None = None,
) -> None:
    """Prints the summary on the first rank; call it on all ranks.

    Args:
        roles: the weight roles to show.
        samples: size of each data set, by name.
        counted: what the loss is held against.
    """
    parameters = count_parameters(chunks)
    if args.rank != 0:
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    sizes = ", ".join(f"{name} {size:,}" for name, size in samples.items())
    unused = family(args.model).describe_unused(getattr(args, "document_counts", {}))  # fine-tuning has none
    virtual = args.virtual_pipeline_model_parallel_size
    grouped = f" in {args.num_query_groups} query groups" if args.num_query_groups != args.num_attention_heads else ""
    decay = f" over {args.lr_decay_iters}" if args.lr_decay_iters != args.train_iters else ""
    print(
        f"model: {family(args.model).title}, {args.num_layers} layers x {args.hidden_size}, "
        f"{args.num_attention_heads} heads{grouped}, FFN {args.ffn_hidden_size} {args.activation}, sequence "
        f"{args.seq_length}, {parameters / 1e6:.2f} M parameters\n"
        f"layout: {args.world_size} ranks = tensor {args.tensor_model_parallel_size} x pipeline "
        f"{args.pipeline_model_parallel_size} x data {args.data_parallel_size}"
        f"{', sequence parallel' if args.sequence_parallel else ''}"
        f"{f', {virtual} virtual stages' if virtual else ''}"
        f"{', distributed optimizer' if args.use_distributed_optimizer else ''}\n"
        f"runs on: {device} a rank, {transformer_impl(args)} layers"
        f"{' by CPU kernels' if uses_cpu_kernels(args) else ''}, {'bf16' if args.bf16 else 'fp32'}, "
        f"torch {torch.__version__}, megatron-core {megatron_core_version}\n"
        f"data: {sizes} samples; vocabulary {args.tokenizer.vocab_size:,} padded to {padded_vocab_size(args):,}"
        f"{f'; not used: {unused}' if unused else ''}\n"
        f"{f'baselines: {counted.summary()}{chr(10)}' if counted is not None else ''}"
        f"batch: {args.global_batch_size} sequences = {args.num_microbatches} micro-batches of "
        f"{args.micro_batch_size} x {args.data_parallel_size}; {args.train_iters} iterations, lr {args.lr:g} "
        f"{args.lr_decay_style}{decay}, dropout {args.hidden_dropout:g}/{args.attention_dropout:g}, seed {args.seed}\n"
        f"{scheme_table(scheme, roles)}",
        flush=True,
    )
    if getattr(args, "given", None):  # none of a configuration that no command line made
        print(
            fill(f"not defaults: {as_flags(args.given)}", 118, subsequent_indent="  ", break_on_hyphens=False),
            flush=True,
        )
