"""What stands above a run's traced steps: the model in a line, and what the theory predicts of it."""

import warnings
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from dslm_patches.schemes import DepthScheme
from dslm_patches.schemes.prediction import predict, prediction_band
from dslm_patches.theory.moments import Moments, OutsideTheoryWarning
from dslm_patches.tracing.record import TraceRecord
from dslm_patches.tracing.trace_file import Prediction, TraceHeader
from megatron.dslm.models.family import family
from megatron.dslm.models.shape import shape_from_flags


def trace_header(args: Namespace, scheme: DepthScheme, record: TraceRecord, warn: Callable[[str], None]) -> TraceHeader:
    """The header of a trace whose first step is `record`.

    Args:
        args: the run's, with `trace_sites`, `trace_theory` and `tokenizer.vocab_size`.
        warn: called with each warning about the prediction's domain.
    """
    title = (
        f"{family(args.model).title} {args.num_layers} x {args.hidden_size}, {scheme.name}, {scheme.norm_placement}-LN"
    )
    prediction = _predict(args, scheme, record, warn) if args.trace_theory else None
    return TraceHeader(title, args.num_layers, list(args.trace_sites), prediction)


def _predict(args: Namespace, scheme: DepthScheme, record: TraceRecord, warn: Callable[[str], None]) -> Prediction:
    """From the scheme up, and from the measured token correlation of the last layer's gradient down."""
    top = record.sites["layer"].gradient.correlation[-1] if "layer" in record.sites else 0.0
    # A gradient of tokens that sum to zero has a correlation of -1/(T-1), which the theory takes for 0.
    gradient = Moments.correlated(1.0, float(min(max(top, 0.0), 1.0)) if top == top else 0.0)
    shape = shape_from_flags(args, args.tokenizer.vocab_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutsideTheoryWarning)
        profile = predict(shape, scheme, top_gradient=gradient, norm_epsilon=args.norm_epsilon)
    for text in dict.fromkeys(str(one.message) for one in caught if one.category is OutsideTheoryWarning):
        warn(f"outside the theory's domain: {text}")
    values: dict[str, Any] = {**profile.layer_arrays(), **prediction_band(shape, scheme)}
    return Prediction(**values)
