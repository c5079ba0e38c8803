"""Flags that mean nothing without another one: given alone they are refused, not ignored."""

from argparse import Namespace
from collections.abc import Callable

from dslm_patches.errors import UserError
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.models.sections import all_settings

_PARTNERS: tuple[tuple[tuple[str, ...], Callable[[Namespace], bool], str], ...] = (
    (
        ("rotary_percent", "rotary_base"),
        lambda a: a.position_embedding_type == "rope",
        "--position-embedding-type rope",
    ),
    (("lr_wsd_decay_iters", "lr_wsd_decay_style"), lambda a: a.lr_decay_style == "WSD", "--lr-decay-style WSD"),
    (("adam_beta1", "adam_beta2", "adam_eps"), lambda a: a.optimizer == "adam", "--optimizer adam"),
    (("sgd_momentum",), lambda a: a.optimizer == "sgd", "--optimizer sgd"),
    (
        ("recompute_method", "recompute_num_layers"),
        lambda a: a.recompute_granularity == "full",
        "--recompute-granularity full",
    ),
    (
        ("lr_warmup_init",),
        lambda a: bool(a.lr_warmup_iters or a.lr_warmup_fraction),
        "--lr-warmup-iters or --lr-warmup-fraction",
    ),
    (("override_settings", "override_opt_param_scheduler"), lambda a: a.load is not None, "--load"),
    (("min_lr",), lambda a: a.lr_decay_style != "constant", "--lr-decay-style other than constant"),
    (("eval_interval",), lambda a: getattr(a, "eval_iters", 1) != 0, "--eval-iters above 0"),
)
"""Flags, whether they mean something beside the others, and what they need."""


def check_partners(args: Namespace) -> None:
    """Refuses a flag that differs from its default and would be ignored.

    Args:
        args: as parsed, before defaults are filled in.

    Raises:
        UserError: both flags are named.
    """
    settings = all_settings()
    for names, is_used, needed in _PARTNERS:
        for name in names:
            value, default = getattr(args, name), settings[name].default
            if value != default and not is_used(args):
                words = " ".join(map(str, value)) if isinstance(value, list) else value
                raise UserError(f"{spelled(name)}{'' if words is True else f' {words}'} needs {needed}")
