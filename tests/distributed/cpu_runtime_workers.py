"""Rank functions of test_cpu_runtime_distributed.py and test_cpu_runtime.py."""

import inspect
import logging
import pickle
import sys
from logging.handlers import BufferingHandler
from typing import Any

import torch
from megatron.core import dist_checkpointing, tensor_parallel
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.transformer.torch_norm import WrappedTorchNorm

from dslm_patches.cpu import install, installed_patches
from tests.distributed.plain_megatron import Trainer, tiny_config


def save_weights(kind: str, path: str) -> None:
    """Write a checkpoint of fresh weights, from which every layout can start."""
    Trainer(kind).save(path, with_optimizer=False)


def train(kind: str, weights: str, steps: int = 3, **settings: Any) -> tuple[list[float], list[float]]:
    """Losses (empty on ranks before the last stage) and gradient norms, starting from `weights`."""
    trainer = Trainer(kind, **settings)
    trainer.load(weights, with_optimizer=False)
    return trainer.train(steps)


def train_and_save(kind: str, weights: str, path: str, **settings: Any) -> list[float]:
    """Save model and optimizer after two steps; the losses of the three steps that follow."""
    trainer = Trainer(kind, **settings)
    trainer.load(weights, with_optimizer=False)
    trainer.train(2)
    trainer.save(path, with_optimizer=True)
    return trainer.train(3, first=2)[0]


def load_and_train(kind: str, path: str, **settings: Any) -> list[float]:
    """The losses of three steps after the two that `path` was saved after."""
    trainer = Trainer(kind, **settings)
    trainer.load(path, with_optimizer=True)
    return trainer.train(3, first=2)[0]


def save_asynchronously(weights: str, path: str) -> bool:
    """Whether a checkpoint holds the weights at the time of the save, though they change right after it."""
    trainer = Trainer("gpt")
    trainer.load(weights, with_optimizer=False)
    parameter = trainer.bare_chunks[0].decoder.layers[0].mlp.linear_fc1.weight
    saved = parameter.detach().clone()
    # From 0.17 on NVIDIA's resiliency extension is the default, which CPU users have no need for.
    has_strategies = "async_strategy" in inspect.signature(dist_checkpointing.save).parameters
    own = {"async_strategy": "mcore"} if has_strategies else {}
    request = dist_checkpointing.save(trainer.sharded_state(False), path, async_sharded_save=True, **own)
    queue = AsyncCallsQueue(persistent=True)
    queue.schedule_async_request(request)
    with torch.no_grad():
        parameter.zero_()
    queue.maybe_finalize_async_calls(blocking=True)
    queue.close()
    trainer.load(path, with_optimizer=False)
    return torch.equal(parameter, saved)


def dropout_masks() -> dict[str, torch.Tensor]:
    """Masks drawn inside and outside the model-parallel region, and again after restoring the states."""
    ones = torch.ones(256)
    tracker = tensor_parallel.get_cuda_rng_tracker()

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        with tracker.fork():
            inside = torch.nn.functional.dropout(ones, 0.5)
        return inside, torch.nn.functional.dropout(ones, 0.5)

    inside, outside = draw()
    states = tracker.get_states()
    default = torch.cuda.get_rng_state()
    inside_next, outside_next = draw()
    # As a trainer restores them: into a new tracker, from what a checkpoint file gave back.
    tensor_parallel.model_parallel_cuda_manual_seed(99, force_reset_rng=True)
    tracker = tensor_parallel.get_cuda_rng_tracker()
    tracker.set_states(pickle.loads(pickle.dumps(states)))
    torch.cuda.set_rng_state(default)
    inside_again, outside_again = draw()
    return {
        "inside": inside,
        "outside": outside,
        "inside_next": inside_next,
        "outside_next": outside_next,
        "inside_again": inside_again,
        "outside_again": outside_again,
    }


def rng_fork_warnings() -> tuple[int, int]:
    """How often drawing in a fork warns of the CPU generator, and whether other warnings still come."""
    logger = logging.getLogger("megatron.core.tensor_parallel.random")
    handler = BufferingHandler(capacity=100)
    logger.addHandler(handler)
    with tensor_parallel.get_cuda_rng_tracker().fork():
        torch.rand(1)
    from_fork = len(handler.buffer)
    logger.warning("another")
    logger.removeHandler(handler)
    return from_fork, len(handler.buffer) - from_fork


def layer_norms(normalization: str, sequence_parallel: bool) -> tuple[str, list[bool]]:
    """Class of the norm that a local spec builds, and its parameters' `sequence_parallel` marks."""
    config = tiny_config(normalization=normalization, sequence_parallel=sequence_parallel)
    norm = WrappedTorchNorm(config=config, hidden_size=32, eps=1e-5)
    return type(norm).__module__, [getattr(p, "sequence_parallel", False) for p in norm.parameters()]


def patched_places() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """What install() replaced here, and the source files of the megatron-core modules that are loaded."""
    files = {
        name: str(module.__file__)
        for name, module in sorted(sys.modules.items())
        if name.startswith("megatron.core") and str(getattr(module, "__file__", None)).endswith(".py")
    }
    return installed_patches(), files


def install_again() -> bool:
    """Whether a second install() leaves everything as the first one put it."""
    before = [torch.cuda.current_device, torch.Tensor.cuda, WrappedTorchNorm.__new__, installed_patches()]
    assert install()
    return before == [
        torch.cuda.current_device,
        torch.Tensor.cuda,
        WrappedTorchNorm.__new__,
        installed_patches(),
    ]
