"""Checks and fills in the arguments, without torch. Every error is a UserError that names the flag."""

import math
from argparse import Namespace

from dslm_patches.errors import UserError
from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from megatron.dslm.arguments.depth import resolve_depth_scheme
from megatron.dslm.arguments.folders import check_folders, recorded
from megatron.dslm.arguments.layout import resolve_layout
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.models.family import family
from megatron.dslm.models.sections import all_settings

_TRACING = {
    "trace_theory": False,
    "trace_halt_on": None,
    "trace_sites": None,
    "trace_growth_limit": 1.02,
    "trace_correlation_limit": 0.98,
}
"""Flags of traced steps and their defaults."""


def validate(args: Namespace) -> None:
    """Fills defaults that follow from other flags and checks all flags against each other.

    Raises:
        UserError: one line that names the flag and says what would be right.
    """
    validate_model(args)
    resolve_layout(args)
    _check_data_flags(args)
    _check_tokenizer_flags(args)
    _resolve_tracing(args)
    check_folders(args, ("save", "tensorboard_dir", "trace_dir", "data_cache_path"))
    resolve_schedule(args)


def validate_finetuning(args: Namespace) -> None:
    """The part of `validate` that fine-tuning shares; the schedule waits for the number of samples.

    Raises:
        UserError: as `validate`.
    """
    validate_model(args)
    resolve_layout(args)
    _check_tokenizer_flags(args)
    _resolve_tracing(args)
    check_folders(args, ("save", "output_dir", "tensorboard_dir", "trace_dir"))


def validate_model(args: Namespace) -> None:
    """The part of `validate` that needs the model, depth-scheme and dropout flags alone, and args.model.

    Raises:
        UserError: as `validate`.
    """
    _check_ranges(args)
    _resolve_architecture(args)
    resolve_depth_scheme(args)


def _check_ranges(args: Namespace) -> None:
    settings = all_settings()
    for name, value in vars(args).items():
        if name in settings:
            settings[name].check(value)
        elif isinstance(value, float) and not math.isfinite(value):  # an option of a command's own
            raise UserError(f"{spelled(name)} must be a finite number, not {value}")


def _resolve_architecture(args: Namespace) -> None:
    if args.swiglu:
        if args.activation not in (None, "swiglu"):
            raise UserError(f"--swiglu contradicts --activation {args.activation}: give one of them")
        args.activation = "swiglu"
    args.activation = args.activation or "gelu"
    if args.activation not in FFN_ACTIVATIONS:  # of a folder's configuration: flags have been held against the same
        raise UserError(f"--activation must be one of {', '.join(FFN_ACTIVATIONS)}, not {args.activation}")
    if args.ffn_hidden_size is None:
        gated = FFN_ACTIVATIONS[args.activation].gated
        # Megatron-LM's choice for gated units: the parameter count of 4 h, in multiples of 64.
        args.ffn_hidden_size = max(64, int(8 * args.hidden_size / 3) // 64 * 64) if gated else 4 * args.hidden_size
    if args.kv_channels is None:
        if args.hidden_size % args.num_attention_heads:
            raise UserError(
                f"--hidden-size {args.hidden_size} must be divisible by --num-attention-heads "
                f"{args.num_attention_heads}, or give --kv-channels"
            )
        args.kv_channels = args.hidden_size // args.num_attention_heads
    _resolve_query_groups(args)
    args.max_position_embeddings = args.max_position_embeddings or args.seq_length
    if args.seq_length > args.max_position_embeddings:
        raise UserError(
            f"--seq-length {args.seq_length} is longer than --max-position-embeddings {args.max_position_embeddings}"
        )
    family(args.model).check(args)


def _resolve_query_groups(args: Namespace) -> None:
    groups, heads = args.num_query_groups, args.num_attention_heads
    if groups is None:
        args.num_query_groups = 1 if args.group_query_attention else heads
    elif not args.group_query_attention and groups != heads:
        raise UserError(f"--num-query-groups {groups} needs --group-query-attention")
    elif heads % groups:
        raise UserError(f"--num-attention-heads {heads} must be divisible by --num-query-groups {groups}")


def resolve_schedule(args: Namespace) -> None:
    """Fills in and checks the learning-rate schedule of args.train_iters iterations, after the folders.

    A run that goes on decays over as many iterations as it began with, whatever its --train-iters has become.
    """
    args.decay_is_recorded, args.lr_decay_is_derived = False, args.lr_decay_iters is None
    if args.lr_decay_is_derived and not args.override_opt_param_scheduler:
        # One that was given has to be given again, as all else.
        if recorded(args, "lr_decay_is_derived") is not False:
            args.lr_decay_iters = recorded(args, "lr_decay_iters")
        args.decay_is_recorded = args.lr_decay_iters is not None
    args.lr_decay_iters = args.lr_decay_iters or args.train_iters
    if args.lr_warmup_fraction is not None:
        if args.lr_warmup_iters:
            raise UserError("--lr-warmup-fraction contradicts --lr-warmup-iters: give one of them")
        if not 0.0 <= args.lr_warmup_fraction < 1.0:
            raise UserError(f"--lr-warmup-fraction must lie in [0, 1), not {args.lr_warmup_fraction}")
        args.lr_warmup_iters = round(args.lr_warmup_fraction * args.lr_decay_iters)
    if args.lr_warmup_iters >= args.lr_decay_iters:
        raise UserError(
            f"--lr-warmup-iters {args.lr_warmup_iters} must be below --lr-decay-iters {args.lr_decay_iters}"
        )
    if args.min_lr > args.lr:
        raise UserError(f"--min-lr {args.min_lr:g} is above --lr {args.lr:g}")
    if args.lr_warmup_init > args.lr:
        raise UserError(f"--lr-warmup-init {args.lr_warmup_init:g} is above --lr {args.lr:g}")
    if args.lr_decay_style == "WSD":
        _check_final_decay(args)


def _check_final_decay(args: Namespace) -> None:
    if args.lr_wsd_decay_iters is None:
        raise UserError("--lr-decay-style WSD needs --lr-wsd-decay-iters")
    if args.lr_wsd_decay_iters > args.lr_decay_iters - args.lr_warmup_iters:
        raise UserError(
            f"--lr-wsd-decay-iters {args.lr_wsd_decay_iters} is longer than what --lr-decay-iters "
            f"{args.lr_decay_iters} leaves after --lr-warmup-iters {args.lr_warmup_iters}: the learning rate would jump"
        )


def _check_data_flags(args: Namespace) -> None:
    if (args.data_path is None) == (args.train_data_path is None):
        raise UserError("give either --data-path or --train-data-path (with --valid-data-path)")
    if args.data_path is None:
        if args.split is not None:
            raise UserError("--split divides --data-path; it contradicts --train-data-path")
        if args.eval_iters and args.valid_data_path is None:
            raise UserError("--train-data-path needs --valid-data-path, or --eval-iters 0")
    elif args.valid_data_path or args.test_data_path:
        raise UserError("--valid-data-path and --test-data-path go with --train-data-path, not with --data-path")
    else:
        args.split = args.split or "969,30,1"
        _check_split(args.split)


def _check_tokenizer_flags(args: Namespace) -> None:
    own = family(args.model)
    if args.tokenizer_type not in own.tokenizer_types:
        raise UserError(
            f"--tokenizer-type {args.tokenizer_type} cannot be a {own.title}'s: give one of "
            f"{', '.join(own.tokenizer_types)}"
        )
    if args.tokenizer_type == "GPT2BPETokenizer":
        if args.merge_file is None:
            raise UserError("--tokenizer-type GPT2BPETokenizer needs --merge-file")
    elif args.merge_file is not None:
        raise UserError(f"--merge-file goes with GPT2BPETokenizer, not with --tokenizer-type {args.tokenizer_type}")


def _check_split(split: str) -> None:
    try:
        shares = [float(share) for share in split.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0:
        raise UserError(f"--split {split!r} must be three shares, train first and positive, as in 969,30,1")


def _resolve_tracing(args: Namespace) -> None:
    args.trace_dir = args.trace_dir or args.tensorboard_dir
    if args.trace_interval is None:
        args.trace_interval = 10 if args.trace_dir else 0
    if args.trace_interval and not args.trace_dir:
        raise UserError(f"--trace-interval {args.trace_interval} needs --trace-dir or --tensorboard-dir to write to")
    if not args.trace_interval:
        for name, default in _TRACING.items():
            if getattr(args, name) != default:
                raise UserError(f"{spelled(name)} needs --trace-interval above 0, and --trace-dir or --tensorboard-dir")
    args.trace_sites = args.trace_sites or ["layer"]
