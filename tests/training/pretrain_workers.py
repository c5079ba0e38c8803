"""Whole runs of the trainer inside the pool's ranks."""

import contextlib
import io
import math
from typing import Any
from unittest import mock

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer

from megatron.dslm.arguments import parse_args
from megatron.dslm.checkpoints.save import finish_param_gather
from megatron.dslm.models.build import build_chunks
from megatron.dslm.models.family import family
from megatron.dslm.training import run as run_module
from megatron.dslm.training.pretrain import pretrain
from tests.distributed.trainer_workers import make_trainer


def run(argv: list[str], model: str) -> tuple[int, str]:
    """(exit code, all that this rank printed) of a run from the command line on."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            pretrain(parse_args(model, argv))
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

    with mock.patch.object(run_module, "build_chunks", build):
        return run(argv, model)


def run_with_moe_config(argv: list[str], model: str) -> tuple[int, str]:
    """The same with a configuration that says mixture of experts when the tracer looks at it."""

    def build(*args: Any, **kwargs: Any) -> Any:
        chunks, scheme = build_chunks(*args, **kwargs)
        chunks[0].config.num_moe_experts = 4
        return chunks, scheme

    with mock.patch.object(run_module, "build_chunks", build):
        return run(argv, model)


def run_with_a_bad_loss(argv: list[str], model: str, at: list[int]) -> tuple[int, str]:
    """The same with a loss that is not a number in the micro-batches of the given numbers, counted by rank."""
    module = family(model).model()
    with mock.patch.object(module, "forward_step", bad_forward_step(module.forward_step, at)):
        return run(argv, model)


def bad_forward_step(forward_step: Any, at: list[int]) -> Any:
    """A forward step whose loss is multiplied by NaN in the training micro-batches of the given numbers."""
    count = 0

    def bad(data_iterator: Any, model: Any) -> Any:
        nonlocal count
        output, loss = forward_step(data_iterator, model)
        count += torch.is_grad_enabled()
        if count not in at or not torch.is_grad_enabled():
            return output, loss

        def bad_loss(*args: Any) -> Any:
            value, told = loss(*args)
            return value * math.nan, {name: one * math.nan for name, one in told.items()}

        return output, bad_loss

    return bad


def weights_around_a_bad_step(argv: list[str], model: str) -> dict[str, Any]:
    """A good, a bad and a good step: whether weights and optimizer changed in each, norms and rates."""
    args, trainer, iterators = make_trainer(argv, model)
    good = trainer.forward_step
    told: dict[str, Any] = {"changed": [], "norm": [], "rate": []}
    for bad in (False, True, False):
        trainer.forward_step = bad_forward_step(good, [2]) if bad else good
        before = [one.clone() for one in _tensors(trainer)]
        _, norm = trainer.step(iterators)
        finish_param_gather(args, trainer.chunks)
        after = _tensors(trainer)
        same = len(before) == len(after) and all(map(torch.equal, before, after))
        told["changed"].append(not same)
        told["norm"].append(norm)
        told["rate"].append(trainer.optimizer.param_groups[0]["lr"])
    assert args.num_microbatches == 2, "one of two micro-batches is bad"
    return {**told, "skipped": trainer.skipped}


def _tensors(trainer: Any) -> list[torch.Tensor]:
    weights = [one.data for chunk in trainer.chunks for one in chunk.parameters()]
    for optimizer in trainer.optimizer.chained_optimizers:
        for state in optimizer.optimizer.state.values():
            weights += [one for one in state.values() if isinstance(one, torch.Tensor)]
    return weights
