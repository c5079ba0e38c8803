"""Settles the depth-scheme flags: every spelling of the same choice, and nothing silently overridden."""

from argparse import Namespace

from dslm_patches.errors import UserError
from dslm_patches.schemes import OptionError, SchemeOptions
from dslm_patches.schemes.dslm import residual_squares
from megatron.dslm.config.one_line_parser import spelled

_DSLM_ONLY = ("dslm_k", "dslm_alpha", "dslm_lambda_sq", "dslm_beta_sq", "dslm_input_correlation")
_ARGUMENTS = {
    "norm_placement": "norm_placement",
    "init_method_std": "init_method_std",
    "k": "dslm_k",
    "alpha": "dslm_alpha",
    "lambda_sq": "dslm_lambda_sq",
    "beta_sq": "dslm_beta_sq",
}
"""A scheme's options, and the arguments that set them."""


def resolve_depth_scheme(args: Namespace) -> None:
    """Sets args.depth_scheme, args.norm_placement and args.scheme_options from all the flags that speak of them.

    Raises:
        UserError: two flags that contradict each other (both are named), or coefficients out of range.
    """
    args.depth_scheme = _one_scheme(args)
    if args.apply_residual_connection_post_layernorm:
        if args.norm_placement == "pre":
            raise UserError("--norm-placement pre contradicts --apply-residual-connection-post-layernorm")
        args.norm_placement = "post"
    args.norm_placement = args.norm_placement or "pre"
    _check_scheme_flags(args)
    given = {option: getattr(args, name) for option, name in _ARGUMENTS.items()}
    args.scheme_options = SchemeOptions(**{option: value for option, value in given.items() if value is not None})
    if args.depth_scheme == "dslm":
        try:
            residual_squares(args.num_layers, args.scheme_options)
        except OptionError as error:
            raise UserError(error.worded(lambda option: spelled(_ARGUMENTS[option]))) from None


def _one_scheme(args: Namespace) -> str:
    if args.moment_control_sigma != args.moment_control_lambda_beta:
        raise UserError(
            "--moment-control-sigma and --moment-control-lambda-beta are the two halves of --dslm: give both, or --dslm"
        )
    choices = {
        "--dslm": "dslm" if args.dslm else None,
        "--depth-scheme": args.depth_scheme,
        "--moment-control-sigma": "dslm" if args.moment_control_sigma else None,
        "--xavier-flag-sigma": "xavier" if args.xavier_flag_sigma else None,
    }
    given = {name: choice for name, choice in choices.items() if choice is not None}
    if len(set(given.values())) > 1:
        both = " and ".join(f"{name} {choice}" if name == "--depth-scheme" else name for name, choice in given.items())
        raise UserError(f"{both} contradict each other: give one of them")
    return next(iter(given.values()), "megatron")


def _check_scheme_flags(args: Namespace) -> None:
    for name in _DSLM_ONLY:
        if getattr(args, name) is not None and args.depth_scheme != "dslm":
            raise UserError(f"{spelled(name)} goes with --dslm, not with depth scheme {args.depth_scheme}")
    if args.dslm_input_correlation is not None and not 0.0 <= args.dslm_input_correlation <= 1.0:
        raise UserError(f"--dslm-input-correlation must lie in [0, 1], not {args.dslm_input_correlation:g}")
    if args.init_method_std is not None and args.depth_scheme != "megatron":
        raise UserError(f"--init-method-std contradicts depth scheme {args.depth_scheme}, which sets its own")
    if args.dslm_lambda_sq is not None or args.dslm_beta_sq is not None:
        for name in ("dslm_k", "dslm_alpha"):
            if getattr(args, name) is not None:
                other = "--dslm-lambda-sq" if args.dslm_lambda_sq is not None else "--dslm-beta-sq"
                raise UserError(f"{spelled(name)} contradicts {other}: give one of them")
