"""What becomes of each flag when a run goes on from a checkpoint: whether it may change, and by whose leave.

Read without torch. Every flag is in one class (a test walks through them), so that a setting holds or is refused.
"""

from enum import Enum

from megatron.dslm.one_line_parser import spelled


class OnResume(Enum):
    """Whether a resumed run may have another value than the checkpoint's run had."""

    NEVER = "never: it makes the model or the optimizer's state"
    COURSE = "with `--override-opt-param-scheduler`"
    BY_NAME = "with `--override-settings NAME`"
    FREE = "may change"
    SPELLING = "another spelling, counted as the flags that it stands for"


ARCHITECTURE = (
    "model",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "ffn_hidden_size",
    "kv_channels",
    "num_query_groups",
    "max_position_embeddings",
    "position_embedding_type",
    "rotary_percent",
    "rotary_base",
    "activation",
    "normalization",
    "norm_epsilon",
    "disable_bias_linear",
    "untie_embeddings_and_output_weights",
    "make_vocab_size_divisible_by",
    "bert_no_binary_head",
)
"""Flags that make a model's function and its tensors."""
SCHEME = (
    "depth_scheme",
    "norm_placement",
    "dslm_k",
    "dslm_alpha",
    "dslm_lambda_sq",
    "dslm_beta_sq",
    "dslm_input_correlation",
    "init_method_std",
    "seq_length",
)
"""Flags that make its depth scheme."""
DROPOUT = ("hidden_dropout", "attention_dropout")
"""Part of the scheme too under DeepScaleLM, whose head scale follows from them."""
OPTIMIZER = ("optimizer", "use_distributed_optimizer", "bf16", "task")
"""Flags that make the optimizer's state, which any layout can load, but no other optimizer; and the head's task."""
COURSE = (
    "lr",
    "min_lr",
    "lr_decay_style",
    "lr_decay_iters",
    "lr_warmup_iters",
    "lr_warmup_init",
    "lr_wsd_decay_iters",
    "lr_wsd_decay_style",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "sgd_momentum",
    "clip_grad",
)
"""Flags of the schedule and of the optimizer's numbers."""
DATA = ("data_path", "train_data_path", "valid_data_path", "test_data_path", "split")
DATA_ORDER = ("global_batch_size", "micro_batch_size", "seed", "mask_prob", "short_seq_prob", "group_by_length")
"""Flags that say which sample is next, and what becomes of it; BERT's loss is a mean over each micro-batch."""
TASK_DATA = ("train_data", "valid_data")
START = ("pretrained_checkpoint",)
"""What a run began from: it may be left out when the run goes on, but not be another."""
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")
"""Recorded, for random states that belong to a layout; free to change."""

CLASSES: dict[OnResume, tuple[str, ...]] = {
    OnResume.NEVER: (*ARCHITECTURE, *SCHEME, *OPTIMIZER, "tokenizer_type", "vocab_file", "merge_file"),
    OnResume.COURSE: COURSE,
    OnResume.BY_NAME: (*DATA, *DATA_ORDER, *TASK_DATA, *DROPOUT, *START),
    OnResume.FREE: (
        # how long
        *("train_iters", "epochs", "train_samples", "exit_interval"),
        # where and how it is computed
        *LAYOUT[:2],
        *("num_layers_per_virtual_pipeline_stage", "sequence_parallel", "overlap_grad_reduce", "overlap_param_gather"),
        *("recompute_granularity", "recompute_method", "recompute_num_layers", "cpu_kernels", "transformer_impl"),
        *("distributed_timeout_minutes", "hang_timeout_seconds", "num_workers", "data_cache_path", "on_non_finite"),
        # what is kept, shown and measured
        *("save", "load", "save_interval", "keep_last", "async_save", "output_dir", "test_data"),
        *("override_opt_param_scheduler", "override_settings"),
        *("log_interval", "tensorboard_dir", "eval_interval", "eval_iters"),
        *("trace_interval", "trace_sites", "trace_dir", "trace_theory", "trace_halt_on", "trace_growth_limit"),
        "trace_correlation_limit",
    ),
    OnResume.SPELLING: (
        *("dslm", "moment_control_sigma", "moment_control_lambda_beta", "xavier_flag_sigma"),
        *("apply_residual_connection_post_layernorm", "swiglu", "group_query_attention", "lr_warmup_fraction"),
    ),
}
"""Each flag by its argument's name."""
CLASS_OF = {name: kind for kind, names in CLASSES.items() for name in names}


def markdown_table() -> str:
    """The classes as a table for the docs."""
    rows = ["| a resumed run may have another value | flags |", "|---|---|"]
    for kind, names in CLASSES.items():
        flags = ", ".join(f"`{spelled(name)}`" for name in names if name != "model")
        rows.append(f"| {kind.value} | {flags} |")
    return "\n".join(rows) + "\n"
