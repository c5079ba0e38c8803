"""Loads checkpoints of any layout: the newest whole one, and nothing that could run code."""

import json
import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.dist_checkpointing.validation import StrictHandling
from torch.distributed.checkpoint.api import CheckpointException

from dslm_patches.errors import UserError
from megatron.dslm.checkpoints import safe_loading
from megatron.dslm.checkpoints.folder import iteration_folder, none_complete, saved_iterations
from megatron.dslm.checkpoints.manifest import UnreadError, check_digests, check_sizes, read_manifest
from megatron.dslm.checkpoints.saved_arguments import check_resume, read_arguments
from megatron.dslm.checkpoints.settings import LAYOUT
from megatron.dslm.checkpoints.state import TrainState, named_chunks, sharded_models, sharded_rng_state, sharded_state
from megatron.dslm.distributed.random_states import set_random_states
from megatron.dslm.distributed.ranks import from_all_ranks, from_first_rank
from megatron.dslm.faults.diagnosis import OtherRankError
from megatron.dslm.optimizer.adam_steps import choose_kernel, translate_steps
from megatron.dslm.optimizer.build import held_settings

_FAULTS_OF_THE_FOLDER = (safe_loading.UnsafeCheckpointError, CheckpointingException, OSError)
"""What a foreign or forged folder raises: damage is found before, by the checksums. All else is not its fault."""
_BACKEND = {"sharded_backend": "torch_dist", "common_backend": "torch"}


def newest_checkpoint(args: Namespace, root: str, flag: str, say: Callable[[str], None]) -> str | None:
    """The folder of the newest checkpoint in `root` that agrees with its checksums; None where there is none at all.

    The ranks share the reading. All of them call it.

    Args:
        say: told of every newer checkpoint that is skipped, and why, on the rank that speaks.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
        UnreadError: one could not be read that may be whole, and newer than those that are. No older one is taken in
            its place: the run would silently go back.
    """
    problems: list[str] = []
    for iteration in _checked(flag, _first_looks(args, partial(saved_iterations, root))):
        folder = iteration_folder(root, iteration)
        problem = _checked(flag, _first_looks(args, partial(check_sizes, folder)) or _first_problem(args, folder))
        if problem is None:
            if args.rank == args.world_size - 1:
                for skipped in problems:
                    say(f"warning: {flag}: skipped {root}/{skipped}")
            return folder
        problems.append(f"{os.path.basename(folder)}: {problem}")
    if problems:
        raise none_complete(root, problems, flag)
    return None


def _first_problem(args: Namespace, folder: str) -> Any:
    """What is wrong with the content of the files, of which each rank reads its part."""

    def check_own() -> str | None:
        files = sorted(read_manifest(folder).items(), key=lambda item: -item[1]["bytes"])
        return check_digests(folder, [name for name, _ in files][args.rank :: args.world_size])

    problems = [one for one in from_all_ranks(_looked(check_own)) if one is not None]
    # What one rank found damaged is damaged, whatever another could not read.
    return min(problems, key=lambda one: isinstance(one, Exception), default=None)


def _first_looks(args: Namespace, look: Callable[[], Any]) -> Any:
    """What rank 0 finds; all of them call it."""
    return from_first_rank(_looked(look) if args.rank == 0 else None)


def _looked(look: Callable[[], Any]) -> Any:
    """What `look` gives or, as a value that ranks can tell each other, why it could not look."""
    try:
        return look()
    except (UnreadError, OSError) as error:
        return error


def _checked(flag: str, found: Any) -> Any:
    """What was found by `_looked`, on all ranks, unless it could not look."""
    if isinstance(found, Exception):
        raise UnreadError(f"{flag}: {found}")
    return found


def load_checkpoint(args: Namespace, folder: str, trainer: TrainState) -> tuple[int, dict[str, Any]]:
    """Fills model, optimizer, schedule and RNG from a checkpoint of any layout; its iteration and the run's own values.

    The RNG states of dropout belong to ranks and devices: they are restored when the layout is the saved one on the
    same kind of device and the seed was not changed, and otherwise stay as seeded. All ranks call it.

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
    strict = StrictHandling.RAISE_UNEXPECTED  # what the folder does not hold, told by name before anything is read
    loaded = _reading(folder, "--load", lambda: dist_checkpointing.load(state, folder, strict=strict))
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
    same_seed = saved.get("seed") in (None, args.seed)
    if same_layout and same_seed and ("cuda" in loaded["rng_state"]) == torch.cuda.is_available():
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
        path = os.path.join(folder, "metadata.json")
        with open(path, "rb") as file:
            backend = safe_loading.decode(path, lambda: dict(json.load(file)))
        if {name: backend.get(name) for name in _BACKEND} != _BACKEND:
            raise CheckpointingException(f"its format is {backend}, not {_BACKEND}")
        return dist_checkpointing.load_common_state_dict(folder)

    return _reading(folder, flag, read)


def _reading(folder: str, flag: str, read: Callable[[], Any]) -> Any:
    """Calls `read` with all unpickling restricted, and tells what is wrong with the folder as a UserError of one line.

    Everything else leaves as what it is, from the rank that it befell.

    Raises:
        UserError: the folder is not what this program writes, or could not be read (OSError).
        OtherRankError: it befell another rank.
    """
    safe_loading.install()
    try:
        return read()
    except CheckpointException as error:  # torch's, on all ranks, of what failed on which
        causes = {rank: cause for rank, (cause, _) in error.failures.items()}
        others = {rank: cause for rank, cause in causes.items() if not isinstance(cause, _FAULTS_OF_THE_FOLDER)}
        if not others:
            raise _unreadable(folder, flag, next(iter(causes.values()))) from None
        own = others.get(torch.distributed.get_rank())
        if own is None:
            raise OtherRankError(f"{folder} could not be loaded by rank {min(others)}") from None
        raise own from error
    except _FAULTS_OF_THE_FOLDER as error:
        raise _unreadable(folder, flag, error) from None


def _unreadable(folder: str, flag: str, cause: BaseException) -> UserError:
    return UserError(f"{flag}: {folder} cannot be read: {' '.join(str(cause).split()) or type(cause).__name__}")
