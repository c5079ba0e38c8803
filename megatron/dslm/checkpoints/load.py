"""Loads checkpoints of any layout: the newest whole one, and nothing that could run code."""

import json
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch.distributed.checkpoint.api import CheckpointException

from dslm_patches.errors import UserError
from megatron.dslm.checkpoints import safe_loading
from megatron.dslm.checkpoints.folder import iteration_folder, none_complete, saved_iterations
from megatron.dslm.checkpoints.manifest import check_digests, check_sizes, read_manifest
from megatron.dslm.checkpoints.record import check_resume, read_arguments
from megatron.dslm.checkpoints.settings import LAYOUT
from megatron.dslm.checkpoints.state import named_chunks, sharded_models, sharded_rng_state, sharded_state
from megatron.dslm.faults.diagnosis import is_lost_connection
from megatron.dslm.random_states import set_random_states
from megatron.dslm.ranks import from_all_ranks, from_first_rank
from megatron.dslm.training.adam_steps import choose_kernel, translate_steps
from megatron.dslm.training.optimization import held_settings
from megatron.dslm.training.step import Trainer

# torch and pickle raise whatever a damaged or made-up file leads them to.
_UNREADABLE = (
    *(CheckpointException, CheckpointingException, pickle.UnpicklingError, OSError, EOFError, RuntimeError),
    *(ValueError, LookupError, TypeError, AttributeError),
)
_BACKEND = {"sharded_backend": "torch_dist", "common_backend": "torch"}


def newest_checkpoint(args: Namespace, root: str, flag: str, say: Callable[[str], None]) -> str | None:
    """The folder of the newest checkpoint in `root` that agrees with its checksums; None where there is none at all.

    The ranks share the reading. All of them call it.

    Args:
        say: told of every newer checkpoint that is skipped, and why, on the rank that speaks.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    problems: list[str] = []
    for iteration in from_first_rank(saved_iterations(root)):
        folder = iteration_folder(root, iteration)
        problem = from_first_rank(check_sizes(folder)) or _first_problem(args, folder)
        if problem is None:
            if args.rank == args.world_size - 1:
                for skipped in problems:
                    say(f"warning: {flag}: skipped {root}/{skipped}")
            return folder
        problems.append(f"{os.path.basename(folder)}: {problem}")
    if problems:
        raise none_complete(root, problems, flag)
    return None


def _first_problem(args: Namespace, folder: str) -> str | None:
    files = sorted(read_manifest(folder).items(), key=lambda item: -item[1]["bytes"])
    mine = [name for name, _ in files][args.rank :: args.world_size]
    return next((one for one in from_all_ranks(check_digests(folder, mine)) if one), None)


def load_checkpoint(args: Namespace, folder: str, trainer: Trainer) -> tuple[int, dict[str, Any]]:
    """Fills model, optimizer, schedule and RNG from a checkpoint of any layout; its iteration and the run's own values.

    The RNG states of dropout belong to ranks and devices: they are restored when the layout is the saved one on the
    same kind of device, and otherwise stay as seeded. All ranks call it.

    Raises:
        UserError: a checkpoint of another architecture or scheme (the flags that differ are named), or weights alone.
    """
    saved = read_arguments(folder)
    check_resume(args, saved, folder)
    if "iteration" not in _common(folder, "--load"):
        raise UserError(f"--load: {folder} holds weights alone: give it as --pretrained-checkpoint")
    state = sharded_state(trainer, is_loading=True)
    same_layout = all(saved.get(name) == getattr(args, name) for name in LAYOUT)
    if same_layout:
        state["rng_state"] = sharded_rng_state()
    loaded = _reading(folder, "--load", lambda: dist_checkpointing.load(state, folder))
    for name, chunk in named_chunks(trainer.chunks):
        chunk.load_state_dict(loaded[name])
    translate_steps(loaded["optimizer"], trainer.optimizer)
    with held_settings(trainer.optimizer):
        trainer.optimizer.load_state_dict(loaded["optimizer"])
    choose_kernel(args, trainer.optimizer)
    schedule = loaded["opt_param_scheduler"]
    # Counted in samples, and the flags in iterations: --override-settings global-batch-size changes their ratio.
    schedule["num_steps"] = schedule["num_steps"] // saved["global_batch_size"] * args.global_batch_size
    trainer.scheduler.load_state_dict(schedule)
    trainer.consumed_samples = loaded.get("consumed_samples", loaded["iteration"] * saved["global_batch_size"])
    if same_layout and ("cuda" in loaded["rng_state"]) == torch.cuda.is_available():
        set_random_states(loaded["rng_state"])
    return int(loaded["iteration"]), loaded.get("run", {})


def load_weights(chunks: list[Any], folder: str, flag: str = "--load", *, leave: str | None = None) -> list[str]:
    """Fills model chunks with what a checkpoint of any layout holds for them; the rest stays. All ranks call it.

    Args:
        leave: tensors whose names begin so stay too.

    Returns:
        The names in the model, on any rank, that were left: heads of another task.

    Raises:
        UserError: on all ranks, a tensor of another shape, by its name; no tensor in common.
    """
    _common(folder, flag)
    metadata = _reading(folder, flag, lambda: dist_checkpointing.load_tensors_metadata(folder))
    states = sharded_models(chunks)
    missing, problem = [], None
    for state in states.values():
        for name, tensor in list(state.items()):
            if not isinstance(tensor, ShardedTensor):
                continue  # Transformer Engine's extra states
            if tensor.key not in metadata or (leave is not None and name.startswith(leave)):
                missing.append(name)
                del state[name]
            elif tensor.global_shape != metadata[tensor.key].global_shape and not tensor.allow_shape_mismatch:
                problem = (
                    f"{flag}: {folder} holds {tensor.key} of {list(metadata[tensor.key].global_shape)}, and the model "
                    f"wants {list(tensor.global_shape)}"
                )
    # A stage sees its own tensors, and all must leave before the first of them loads.
    everywhere = from_all_ranks((missing, problem, any(states.values())))
    problem = next((one for _, one, _ in everywhere if one), None)
    if problem is None and not any(found for _, _, found in everywhere):
        problem = f"{flag}: {folder} holds no tensor of this model"
    if problem is not None:
        raise UserError(problem)
    loaded = _reading(folder, flag, lambda: dist_checkpointing.load(states, folder))
    for name, chunk in named_chunks(chunks):
        chunk.load_state_dict(loaded[name], strict=False)
    return list(dict.fromkeys(name for names, _, _ in everywhere for name in names))


def _common(folder: str, flag: str) -> Any:
    """What all ranks share, from a folder in the format that we read."""

    def read() -> Any:
        with open(os.path.join(folder, "metadata.json"), encoding="utf-8") as file:
            backend = json.load(file)
        if {name: backend.get(name) for name in _BACKEND} != _BACKEND:
            raise CheckpointingException(f"its format is {backend}, not {_BACKEND}")
        return dist_checkpointing.load_common_state_dict(folder)

    return _reading(folder, flag, read)


def _reading(folder: str, flag: str, read: Callable[[], Any]) -> Any:
    """Calls `read` with all unpickling restricted; what is wrong with the folder as a UserError of one line."""
    safe_loading.install()
    try:
        return read()
    except _UNREADABLE as error:
        if is_lost_connection(error):
            raise
        cause: BaseException = error
        if isinstance(error, CheckpointException) and error.failures:
            cause = next(iter(error.failures.values()))[0]
        line = next((one for one in str(cause).splitlines() if one.strip()), type(cause).__name__)
        raise UserError(f"{flag}: {folder} cannot be read: {line}") from None
