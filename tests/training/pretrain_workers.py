"""Whole runs of the trainer inside the pool's ranks."""

import contextlib
import io
import math
from importlib import import_module
from typing import Any
from unittest import mock

from megatron.core.transformer.transformer_layer import TransformerLayer

from megatron.dslm.arguments import parse_args
from megatron.dslm.models.build import build_chunks
from megatron.dslm.training import pretrain as pretraining
from megatron.dslm.training.pretrain import pretrain


def run(argv: list[str], model: str) -> tuple[int, str]:
    """(exit code, all that this rank printed) of a run from the command line on."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            pretrain(parse_args(model, argv), import_module(f"megatron.dslm.models.{model}"))
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def run_poisoned(argv: list[str], model: str, layer: int) -> tuple[int, str]:
    """The same with a NaN in the last weight of one layer's FFN."""

    def build(*args: Any, **kwargs: Any) -> Any:
        chunks, scheme = build_chunks(*args, **kwargs)
        for module in chunks[0].modules():
            if isinstance(module, TransformerLayer) and module.layer_number == layer:
                module.mlp.linear_fc2.weight.data[0, 0] = math.nan
        return chunks, scheme

    with mock.patch.object(pretraining, "build_chunks", build):
        return run(argv, model)


def run_with_moe_config(argv: list[str], model: str) -> tuple[int, str]:
    """The same with a configuration that says mixture of experts when the tracer looks at it."""

    def build(*args: Any, **kwargs: Any) -> Any:
        chunks, scheme = build_chunks(*args, **kwargs)
        chunks[0].config.num_moe_experts = 4
        return chunks, scheme

    with mock.patch.object(pretraining, "build_chunks", build):
        return run(argv, model)
