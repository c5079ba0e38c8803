"""`dslm predict`: what the theory says of every layer of a BERT or GPT, from the trainer's own flags."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslm_patches.errors import UserError
from megatron.dslm.cli.outputs import add_output_flags, check_outputs, new_figure, save_figure, write_json
from megatron.dslm.cli.theory_warnings import one_line_each
from megatron.dslm.cli.token_frequencies import match_probability
from megatron.dslm.models.family import NAMES, family

if TYPE_CHECKING:
    from dslm_patches.schemes import DepthScheme, ModelShape
    from dslm_patches.theory.stack import StackProfile

ROWS = 24
LOG_SCALE_FROM = 10.0
"""Ratio of largest to smallest value from which an axis is logarithmic."""


def add_parser(subparsers: Any) -> None:
    """Registers the subcommand."""
    parser = subparsers.add_parser(
        "predict",
        help="predict every layer's variance, token correlation and gradient",
        description="Predict the moments of every layer's hidden states and gradients at initialisation. Takes the "
        "model, depth-scheme and dropout flags of pretrain_bert.py and pretrain_gpt.py.",
    )
    models = parser.add_subparsers(dest="model", metavar="MODEL", required=True)
    for model in NAMES:
        models.add_parser(model, help=f"a {model.upper()}").add_flags = partial(_add_flags, model=model)
    parser.set_defaults(run=run)


def _add_flags(parser: argparse.ArgumentParser, model: str) -> None:
    from megatron.dslm.config.flags import add_section
    from megatron.dslm.models.sections import model_sections

    for section in model_sections(model):
        add_section(parser, section)
    add = parser.add_argument_group("prediction").add_argument
    default = family(model).published_vocabulary
    add("--vocab-size", type=int, default=default, help=f"tokens of the vocabulary before padding; default {default}")
    add(
        "--token-frequencies",
        type=Path,
        metavar="FILE",
        help="counts or frequencies of the tokens in the data, one a line, in place of Zipf's law",
    )
    add(
        "--top-gradient-correlation",
        type=float,
        default=0.0,
        help="token correlation of the gradient at the last layer's output; default 0",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Predicts, prints a table, and writes what was asked for.

    Raises:
        UserError: a flag that is wrong or contradicts another, or a file that cannot be read or written.
    """
    from dslm_patches.schemes import build_scheme
    from dslm_patches.schemes.prediction import predict
    from dslm_patches.theory.moments import Moments, warn_outside
    from megatron.dslm.arguments.validate import validate_model
    from megatron.dslm.models.shape import shape_from_flags

    check_outputs(args)
    validate_model(args)
    _check_gradient_correlation(args)
    if args.vocab_size < 1:
        raise UserError(f"--vocab-size must be positive, not {args.vocab_size}")
    shape = shape_from_flags(args, args.vocab_size, _match_probability(args))
    with one_line_each("dslm predict"):
        if args.position_embedding_type == "rope":
            warn_outside("RoPE: the prediction leaves out that it turns queries and keys apart with their distance")
        scheme = build_scheme(args.depth_scheme, shape, args.scheme_options)
        top = Moments.correlated(1.0, args.top_gradient_correlation)
        profile = predict(shape, scheme, top_gradient=top, norm_epsilon=args.norm_epsilon)
    layers = layer_table(profile)
    print("\n".join([*summary(args, shape, scheme), "", *printed(layers)]))
    if args.json is not None:
        write_json(args.json, as_dict(args, shape, scheme, layers))
    if args.plot is not None:
        size = f"{shape.num_layers} x {shape.hidden_size}"
        title = f"{family(args.model).title} {size}, {scheme.name}, {scheme.norm_placement}-LN"
        _plot(args.plot, title, layers)
    return 0


def _check_gradient_correlation(args: argparse.Namespace) -> None:
    from dslm_patches.theory.moments import check_correlation

    try:
        check_correlation(args.top_gradient_correlation, args.seq_length)
    except ValueError as error:
        raise UserError(f"--top-gradient-correlation: {error}") from None


def _match_probability(args: argparse.Namespace) -> float | None:
    """P(two tokens are the same) by --token-frequencies; None without the flag."""
    if args.token_frequencies is None:
        return None
    if args.dslm_input_correlation is not None:
        raise UserError("--token-frequencies contradicts --dslm-input-correlation: give one of them")
    return match_probability(args.token_frequencies, args.vocab_size)


def layer_table(profile: "StackProfile") -> list[dict[str, Any]]:
    """The embeddings' output (layer 0) and every layer's output; gradient variances over the last layer's."""
    top = profile.gradient[-1].mean_variance
    return [
        {
            "layer": number,
            "forward_variance": forward.mean_variance,
            "token_correlation": forward.correlation,
            "gradient_variance": gradient.mean_variance / top,
            "gradient_correlation": gradient.correlation,
        }
        for number, (forward, gradient) in enumerate(zip(profile.forward, profile.gradient, strict=True))
    ]


def summary(args: argparse.Namespace, shape: "ModelShape", scheme: "DepthScheme") -> list[str]:
    """The model in one line and its scheme in another."""
    from dslm_patches.schemes.table import scheme_summary
    from megatron.dslm.models.shape import padded_size

    padded, title = padded_size(args.vocab_size, args.make_vocab_size_divisible_by), family(args.model).title
    return [
        f"model: {title}, {shape.num_layers} layers x {shape.hidden_size}, {args.num_attention_heads} "
        f"heads, FFN {shape.ffn_hidden_size} {args.activation}, sequence {shape.seq_length}, "
        f"dropout {shape.hidden_dropout:g}/{shape.attention_dropout:g}, vocabulary {args.vocab_size:,} padded to "
        f"{padded:,}, input correlation {shape.input_correlation:.4f}",
        "; ".join(scheme_summary(scheme)),
    ]


def chosen_rows(count: int) -> list[int]:
    """At most `ROWS` indices below `count`, evenly apart, the first and the last among them."""
    if count <= ROWS:
        return list(range(count))
    return [round(step * (count - 1) / (ROWS - 1)) for step in range(ROWS)]


def printed(layers: list[dict[str, Any]]) -> list[str]:
    """The table as lines of text, of a long model a part of its rows."""
    rows = chosen_rows(len(layers))
    lines = [f"{'layer':>5} {'forward variance':>17} {'token correlation':>18} {'gradient variance':>18}"]
    for row in (layers[index] for index in rows):
        lines.append(
            f"{row['layer']:>5} {row['forward_variance']:>#17.5g} {row['token_correlation']:>18.5f} "
            f"{row['gradient_variance']:>#18.5g}"
        )
    part = f"; {len(rows)} of {len(layers)} rows are shown, --json FILE writes all" if len(rows) < len(layers) else ""
    return [*lines, f"layer 0 is the embeddings' output; gradient variances are relative to the last layer's{part}"]


def as_dict(
    args: argparse.Namespace, shape: "ModelShape", scheme: "DepthScheme", layers: list[dict[str, Any]]
) -> dict[str, Any]:
    """What --json holds: the shape, the scheme's residuals and every layer."""
    from dataclasses import asdict

    return {
        "model": args.model,
        "shape": asdict(shape),
        "depth_scheme": scheme.name,
        "norm_placement": scheme.norm_placement,
        "residual": [{"skip_scale": layer.skip_scale, "branch_scale": layer.branch_scale} for layer in scheme.layers],
        "top_gradient_correlation": args.top_gradient_correlation,
        "layers": layers,
    }


def _plot(path: Path, title: str, layers: list[dict[str, Any]]) -> None:
    panels = (
        ("forward_variance", "variance of hidden states", "tab:blue"),
        ("token_correlation", "token correlation of hidden states", "tab:green"),
        ("gradient_variance", "gradient variance / last layer's", "tab:red"),
    )
    figure, axes = new_figure(len(panels))
    numbers = [row["layer"] for row in layers]
    for panel, (name, label, colour) in zip(axes, panels, strict=True):
        values = [row[name] for row in layers]
        panel.plot(numbers, values, color=colour, marker="o" if len(layers) <= ROWS else None, markersize=4)
        panel.set(xlabel="layer (0: embeddings)", title=label)
        panel.set(**vertical_axis(name, values))
    figure.suptitle(title)
    save_figure(path, figure)


def vertical_axis(name: str, values: list[float]) -> dict[str, Any]:
    if name == "token_correlation":
        return {"ylim": (min(0.0, *values) - 0.02, 1.02)}
    if max(values) > LOG_SCALE_FROM * min(values):
        return {"yscale": "log"}
    # From zero, so that a flat profile looks flat.
    return {"ylim": (0.0, 1.15 * max(values))}
