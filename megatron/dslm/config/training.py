"""The layout over ranks, batches and steps, the optimizer and its learning rate."""

from dataclasses import dataclass

from megatron.dslm.config.setting import NOT_NEGATIVE, POSITIVE, PROBABILITY, Bounds, OnResume, setting

NEVER, COURSE, BY_NAME, FREE = OnResume.NEVER, OnResume.COURSE, OnResume.BY_NAME, OnResume.FREE
_HIGHEST_SEED = 2**31 - 1
"""Megatron-core adds to it by rank, and numpy takes 32 bits."""
SEED = Bounds(lambda value: 0 <= value <= _HIGHEST_SEED, f"must lie between 0 and {_HIGHEST_SEED}")


@dataclass(frozen=True, kw_only=True)
class ParallelismConfig:
    """parallelism: ranks = tensor x pipeline x data"""

    tensor_model_parallel_size: int = setting(FREE, 1, bounds=POSITIVE)
    """ranks that share each layer"""
    pipeline_model_parallel_size: int = setting(FREE, 1, bounds=POSITIVE)
    """stages that the layers are cut into"""
    num_layers_per_virtual_pipeline_stage: int = setting(FREE, None, bounds=POSITIVE)
    """interleaved pipeline schedule"""
    sequence_parallel: bool = setting(FREE, False)
    """shard activations between the tensor-parallel regions"""
    use_distributed_optimizer: bool = setting(NEVER, False)
    """shard the optimizer over data-parallel ranks"""
    overlap_grad_reduce: bool = setting(FREE, False)
    """reduce gradients while backward runs"""
    overlap_param_gather: bool = setting(FREE, False)
    """gather parameters while forward runs"""
    distributed_timeout_minutes: float = setting(FREE, 10.0, bounds=POSITIVE)
    """after which a collective that a rank does not join fails"""
    hang_timeout_seconds: float = setting(FREE, 20.0, bounds=NOT_NEGATIVE)
    """end a job of several ranks when none got on for so long, and for five times the longest; 0 never does"""
    recompute_granularity: str = setting(FREE, None, choices=("full", "selective"))
    """recompute activations in backward"""
    recompute_method: str = setting(FREE, None, choices=("uniform", "block"))
    """which layers of a stage are recomputed"""
    recompute_num_layers: int = setting(FREE, None, bounds=POSITIVE)
    """layers that are recomputed together, or that are recomputed at all"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """training"""

    micro_batch_size: int = setting(BY_NAME, bounds=POSITIVE)
    """sequences a forward pass of one data-parallel rank"""
    global_batch_size: int = setting(BY_NAME, None, bounds=POSITIVE)
    """sequences a step; default micro batch x data-parallel ranks"""
    exit_interval: int = setting(FREE, None, bounds=POSITIVE)
    """save and leave when the iteration is divisible by this"""
    on_non_finite: str = setting(FREE, "halt", choices=("halt", "skip"))
    """where a loss or gradient norm is not finite nothing is updated; then stop (default), or skip and count"""
    seed: int = setting(BY_NAME, 1234, bounds=SEED)
    """of weights, data order and dropout"""
    bf16: bool = setting(NEVER, False)
    """bfloat16 with fp32 master weights and gradients"""
    cpu_kernels: bool = setting(FREE, True)
    """on CPU, operations written for it in place of megatron-core's own; nothing to a GPU"""
    transformer_impl: str = setting(FREE, None, choices=("local", "transformer_engine"))
    """layers; default transformer_engine on a GPU where it is installed, else local"""
    num_workers: int = setting(FREE, None, bounds=NOT_NEGATIVE)
    """data loading processes a rank; default 2 on GPU, 1 on CPU from 4 cores a rank on, else 0"""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """optimizer"""

    optimizer: str = setting(NEVER, "adam", choices=("adam", "sgd"))
    """adam is AdamW"""
    weight_decay: float = setting(COURSE, 0.01, bounds=NOT_NEGATIVE)
    """of weights, not of biases and norms"""
    adam_beta1: float = setting(COURSE, 0.9, bounds=PROBABILITY)
    """decay of Adam's mean of the gradient"""
    adam_beta2: float = setting(COURSE, 0.999, bounds=PROBABILITY)
    """decay of Adam's mean of its square"""
    adam_eps: float = setting(COURSE, 1e-8, bounds=POSITIVE)
    """added to Adam's denominator"""
    sgd_momentum: float = setting(COURSE, 0.9, bounds=NOT_NEGATIVE)
    """of --optimizer sgd"""
    clip_grad: float = setting(COURSE, 1.0, bounds=NOT_NEGATIVE)
    """clip the global gradient norm to this; 0 clips nothing"""


@dataclass(frozen=True, kw_only=True)
class LearningRateConfig:
    """learning rate"""

    lr: float = setting(COURSE, bounds=POSITIVE)
    """peak learning rate"""
    min_lr: float = setting(COURSE, 0.0, bounds=NOT_NEGATIVE)
    """learning rate at the end of the decay"""
    lr_decay_style: str = setting(
        COURSE, "linear", choices=("constant", "linear", "cosine", "inverse-square-root", "WSD")
    )
    """how it falls after the warm-up"""
    lr_decay_iters: int = setting(COURSE, None, bounds=POSITIVE)
    """default --train-iters"""
    lr_warmup_iters: int = setting(COURSE, 0, bounds=NOT_NEGATIVE)
    """iterations over which it rises to --lr"""
    lr_warmup_fraction: float = setting(OnResume.SPELLING, None)
    """warm-up as a share of --lr-decay-iters"""
    lr_warmup_init: float = setting(COURSE, 0.0, bounds=NOT_NEGATIVE)
    """where the warm-up begins"""
    override_opt_param_scheduler: bool = setting(FREE, False)
    """go on from --load with the learning rate's course and the optimizer's numbers of these flags, not with those that
    the run began with"""
    lr_wsd_decay_iters: int = setting(COURSE, None, bounds=POSITIVE)
    """length of the final decay of WSD"""
    lr_wsd_decay_style: str = setting(COURSE, "exponential", choices=("linear", "cosine", "exponential"))
    """its form"""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """pretraining"""

    train_iters: int = setting(FREE, bounds=POSITIVE)
    """optimizer steps"""
    eval_interval: int = setting(FREE, 100, bounds=POSITIVE)
    """iterations between evaluations"""
    eval_iters: int = setting(FREE, 10, bounds=NOT_NEGATIVE)
    """global batches an evaluation; 0 evaluates nothing"""
