"""From checked arguments to the configuration objects of megatron-core."""

from argparse import Namespace
from importlib.util import find_spec

import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.enums import AttnBackend

from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from dslm_patches.torch_activations import TORCH_ACTIVATIONS


def transformer_impl(args: Namespace) -> str:
    """The layers to build: as asked for, else Transformer Engine on a GPU that has it, else megatron-core's own."""
    if args.transformer_impl is not None:
        return args.transformer_impl
    on_gpu = torch.cuda.is_available() and find_spec("transformer_engine") is not None
    return "transformer_engine" if on_gpu else "local"


def uses_cpu_kernels(args: Namespace) -> bool:
    """Whether the model computes by dslm_patches.kernels."""
    return args.cpu_kernels and not torch.cuda.is_available()


def transformer_config(args: Namespace) -> TransformerConfig:
    """The model's TransformerConfig. Weights are left to the depth scheme, which draws every one of them."""
    on_gpu = torch.cuda.is_available()
    local = transformer_impl(args) == "local"
    activation = FFN_ACTIVATIONS[args.activation]
    return TransformerConfig(
        num_layers=args.num_layers,
        hidden_size=args.hidden_size,
        num_attention_heads=args.num_attention_heads,
        num_query_groups=args.num_query_groups,
        ffn_hidden_size=args.ffn_hidden_size,
        kv_channels=args.kv_channels,
        hidden_dropout=args.hidden_dropout,
        attention_dropout=args.attention_dropout,
        normalization=args.normalization,
        layernorm_epsilon=args.norm_epsilon,
        activation_func=TORCH_ACTIVATIONS[activation.base],
        gated_linear_unit=activation.gated,
        add_bias_linear=not args.disable_bias_linear,
        init_method=leave_to_scheme,
        output_layer_init_method=leave_to_scheme,
        embedding_init_method=leave_to_scheme,
        use_cpu_initialization=not on_gpu,
        tensor_model_parallel_size=args.tensor_model_parallel_size,
        pipeline_model_parallel_size=args.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=args.virtual_pipeline_model_parallel_size,
        # With 2 stages a rank's next and previous rank are one: batched sends would mix activations and gradients up.
        overlap_p2p_comm=args.virtual_pipeline_model_parallel_size is not None,
        batch_p2p_comm=args.virtual_pipeline_model_parallel_size is None,
        sequence_parallel=args.sequence_parallel,
        pipeline_dtype=torch.bfloat16 if args.bf16 else torch.float32,
        bf16=args.bf16,
        params_dtype=torch.bfloat16 if args.bf16 else torch.float32,
        recompute_granularity=args.recompute_granularity,
        recompute_method=args.recompute_method,
        recompute_num_layers=args.recompute_num_layers,
        # megatron-core's unfused attention is written for the local spec alone.
        attention_backend=AttnBackend.local if local else AttnBackend.auto,
        gradient_accumulation_fusion=on_gpu and find_spec("fused_weight_gradient_mlp_cuda") is not None,
        bias_activation_fusion=on_gpu and args.activation in ("gelu", "swiglu") and not args.disable_bias_linear,
        bias_dropout_fusion=on_gpu,
    )


def leave_to_scheme(weight: torch.Tensor) -> torch.Tensor:
    """An init method that draws nothing: megatron-core still marks the shards, the depth scheme fills them."""
    return weight


def ddp_config(args: Namespace) -> DistributedDataParallelConfig:
    """Data parallelism: gradients are summed in fp32."""
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=args.overlap_grad_reduce,
        overlap_param_gather=args.overlap_param_gather,
        use_distributed_optimizer=args.use_distributed_optimizer,
    )


def optimizer_config(args: Namespace) -> OptimizerConfig:
    """Optimizer, its precision and clipping."""
    return OptimizerConfig(
        optimizer=args.optimizer,
        lr=args.lr,
        min_lr=args.min_lr,
        weight_decay=args.weight_decay,
        adam_beta1=args.adam_beta1,
        adam_beta2=args.adam_beta2,
        adam_eps=args.adam_eps,
        sgd_momentum=args.sgd_momentum,
        clip_grad=args.clip_grad,
        bf16=args.bf16,
        params_dtype=torch.bfloat16 if args.bf16 else torch.float32,
        use_distributed_optimizer=args.use_distributed_optimizer,
        overlap_param_gather=args.overlap_param_gather,
    )
