"""The layout over ranks and the batches that follow from it."""

from argparse import Namespace

from dslm_patches.errors import UserError
from megatron.dslm.config.one_line_parser import spelled


def resolve_layout(args: Namespace) -> None:
    """Sets data-parallel size, virtual pipeline size, global batch and micro-batches; checks that all of it divides.

    Raises:
        UserError: a size that does not divide another, or a flag without the one it needs; both are named.
    """
    _check_sizes(args)
    _resolve_virtual_pipeline(args, args.num_layers // args.pipeline_model_parallel_size)
    _resolve_batches(args)


def _check_sizes(args: Namespace) -> None:
    tp, pp = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    if args.world_size % (tp * pp):
        raise UserError(
            f"--tensor-model-parallel-size {tp} x --pipeline-model-parallel-size {pp} = {tp * pp} does not "
            f"divide the {args.world_size} ranks that were started (torchrun --nproc-per-node, --nnodes)"
        )
    args.data_parallel_size = args.world_size // (tp * pp)
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
        if getattr(args, name) % tp:
            raise UserError(
                f"{spelled(name)} {getattr(args, name)} must be divisible by --tensor-model-parallel-size {tp}"
            )
    if args.num_layers % pp:
        raise UserError(f"--num-layers {args.num_layers} must be divisible by --pipeline-model-parallel-size {pp}")
    if args.sequence_parallel and tp == 1:
        raise UserError("--sequence-parallel needs --tensor-model-parallel-size of 2 or more")
    if args.sequence_parallel and args.seq_length % tp:
        raise UserError(
            f"--seq-length {args.seq_length} must be divisible by --tensor-model-parallel-size {tp} under "
            "--sequence-parallel"
        )
    _check_dependent_flags(args)


def _check_dependent_flags(args: Namespace) -> None:
    if args.overlap_param_gather and not args.use_distributed_optimizer:
        raise UserError("--overlap-param-gather needs --use-distributed-optimizer")
    if args.overlap_param_gather and not args.overlap_grad_reduce:
        raise UserError("--overlap-param-gather needs --overlap-grad-reduce")
    if args.recompute_granularity == "full" and not (args.recompute_method and args.recompute_num_layers):
        raise UserError("--recompute-granularity full needs --recompute-method and --recompute-num-layers")


def _resolve_virtual_pipeline(args: Namespace, layers_per_stage: int) -> None:
    args.virtual_pipeline_model_parallel_size = None
    per_virtual = args.num_layers_per_virtual_pipeline_stage
    if per_virtual is None:
        return
    if args.pipeline_model_parallel_size == 1:
        raise UserError("--num-layers-per-virtual-pipeline-stage needs --pipeline-model-parallel-size of 2 or more")
    if layers_per_stage % per_virtual:
        raise UserError(
            f"--num-layers-per-virtual-pipeline-stage {per_virtual} must divide the {layers_per_stage} layers "
            "of a pipeline stage"
        )
    if layers_per_stage > per_virtual:
        args.virtual_pipeline_model_parallel_size = layers_per_stage // per_virtual


def _resolve_batches(args: Namespace) -> None:
    chunk = args.micro_batch_size * args.data_parallel_size
    args.global_batch_size = args.global_batch_size or chunk
    if args.global_batch_size % chunk:
        raise UserError(
            f"--global-batch-size {args.global_batch_size} must be divisible by --micro-batch-size "
            f"{args.micro_batch_size} x {args.data_parallel_size} data-parallel ranks"
        )
    args.num_microbatches = args.global_batch_size // chunk
    pp = args.pipeline_model_parallel_size
    if args.virtual_pipeline_model_parallel_size and args.num_microbatches % pp:
        raise UserError(
            f"--num-layers-per-virtual-pipeline-stage: the interleaved schedule needs the {args.num_microbatches} "
            f"micro-batches of --global-batch-size to be divisible by --pipeline-model-parallel-size {pp}"
        )
