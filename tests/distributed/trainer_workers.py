"""What ranks of the pool run for tests of models and the trainer."""

from argparse import Namespace
from typing import Any

import torch
from megatron.core.utils import unwrap_model

from dslm_patches.tracing import Tracer
from megatron.dslm.arguments import parse_args
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.initialize import initialize_model_parallel
from megatron.dslm.distributed.random_states import kept_random_states
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.models.family import family
from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
from megatron.dslm.optimizer.update import update_if_finite
from megatron.dslm.training.step import Trainer


def make_trainer(argv: list[str], model: str) -> tuple[Namespace, Trainer, list[Any]]:
    """Arguments, a trainer at its first step, and its data iterators, on running torch.distributed."""
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    module = family(model).model()
    train_set = build_datasets(args, module.dataset(args))[0]
    trainer = trainer_of(args, module, build_chunks(args, module.provide_model)[0])
    return args, trainer, [batch_iterator(args, train_set, 0) for _ in trainer.chunks]


def trainer_of(args: Namespace, module: Any, chunks: list[Any]) -> Trainer:
    """A trainer of unwrapped chunks."""
    chunks = wrap_chunks(args, chunks)
    optimizer = build_optimizer(args, chunks)
    return Trainer(args, chunks, module.forward_step, optimizer, build_scheduler(args, optimizer))


def train(argv: list[str], model: str, steps: int) -> list[tuple[dict[str, float], float]]:
    """Losses (on the last stage) and gradient norm of the first steps."""
    _, trainer, iterators = make_trainer(argv, model)
    return [trainer.step(iterators) for _ in range(steps)]


def updated_both_ways(argv: list[str], model: str, alone: bool) -> tuple[list[bool], int]:
    """Whether weights, optimizer states and norms after three steps are bit for bit those of `optimizer.step`; how many
    tensors were compared.

    Args:
        alone: the one optimizer of megatron-core's chain, rather than the chain, is asked.
    """
    args = parse_args(model, argv)
    initialize_model_parallel(args)
    module = family(model).model()
    train_set = build_datasets(args, module.dataset(args))[0]

    def step_of_megatron(optimizer: Any) -> tuple[bool, float]:
        updated, norm, _ = optimizer.step()
        return updated, norm

    told = []
    for update in (update_if_finite, step_of_megatron):
        trainer = trainer_of(args, module, build_chunks(args, module.provide_model)[0])
        (part,) = trainer.optimizer.chained_optimizers
        iterators, norms = [batch_iterator(args, train_set, 0)], []
        for _ in range(3):
            trainer.gradients(iterators)
            updated, norm = update(part if alone else trainer.optimizer)
            assert updated
            norms.append(torch.tensor(norm, dtype=torch.float64))
        states = [one for state in part.optimizer.state.values() for one in state.values()]
        weights = [one.detach() for chunk in trainer.chunks for one in chunk.parameters()]
        told.append([*norms, *weights, *states])
    return [torch.equal(*pair) for pair in zip(*told, strict=True)], len(told[0])


def dtypes(argv: list[str], model: str) -> dict[str, torch.dtype]:
    """Of a weight, of the gradient that is accumulated, and of what the optimizer updates."""
    _, trainer, iterators = make_trainer(argv, model)
    trainer.step(iterators)
    weight = next(trainer.chunks[0].parameters())
    (master,) = {one.dtype for group in trainer.optimizer.param_groups for one in group["params"]}
    return {"weight": weight.dtype, "gradient": weight.main_grad.dtype, "master": master}


def forward_variances(argv: list[str], model: str, backward: bool = True) -> list[float]:
    """Each layer's forward variance over the first global batch, dropout on; in a whole training step or without."""
    _, trainer, iterators = make_trainer(argv, model)
    tracer = Tracer(trainer.chunks)
    tracer.start()
    if backward:
        trainer.step(iterators)
    else:
        with torch.no_grad():
            trainer._run(iterators, forward_only=True)
    return tracer.collect().sites["layer"].activation.variance.tolist()


def dense_and_labelled(argv: list[str]) -> dict[str, Any]:
    """Losses and gradients of one step with BERT's head on all positions, and on the labelled ones; rows of each."""
    args, trainer, iterators = make_trainer(argv, "bert")
    batches = [[next(one) for _ in range(args.num_microbatches)] for one in iterators]
    rows: list[int] = []
    models = [unwrap_model(chunk) for chunk in trainer.chunks]
    for model in models:
        if model.post_process:
            model.output_layer.register_forward_hook(lambda _m, _i, output: rows.append(output[0].shape[:2].numel()))
    results = {}
    for name, dense in (("dense", True), ("labelled", False)):
        for model in models:
            model.in_full = dense
        rows.clear()
        with kept_random_states():
            losses = trainer.gradients([iter(one) for one in batches])
        grads = [one.main_grad.clone() for chunk in trainer.chunks for one in chunk.parameters()]
        results[name] = (losses, grads, sum(rows))
    return results
