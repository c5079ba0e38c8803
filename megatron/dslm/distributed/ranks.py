"""What ranks tell each other, so that all of them see the same mistake and leave together."""

import json
import os
import secrets
from argparse import Namespace
from typing import Any

import torch

from dslm_patches.errors import UserError


def from_all_ranks(value: Any) -> list[Any]:
    """The value of every rank, by rank; all of them call it."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def from_first_rank(value: Any) -> Any:
    """The value of rank 0; all of them call it."""
    if not torch.distributed.is_initialized():
        return value
    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def settle_run_id(args: Namespace, recorded: str | None) -> None:
    """Sets args.run_id, which tells this run from all others: the recorded one, or a new one; all ranks call it."""
    args.run_id = recorded or from_first_rank(secrets.token_hex(8))


def from_last_rank(args: Namespace, value: Any) -> Any:
    """The value of the last rank, which prints and writes; all of them call it."""
    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=args.world_size - 1)
    return shared[0]


def json_of_last_rank(args: Namespace, path: str, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The JSON object in a file of the last rank's machine, None without a file; all ranks call it.

    Raises:
        UserError: on all ranks, a file that is no object with `keys`.
    """
    content: dict[str, Any] | None = None
    problem = None
    if args.rank == args.world_size - 1 and os.path.isfile(path):
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            if not isinstance(content, dict) or any(key not in content for key in keys):
                problem = f"{path} was not written by this program, or is damaged: remove it"
        except (OSError, ValueError) as error:
            problem = f"{path} cannot be read: {error}"
    content, problem = from_last_rank(args, (content, problem))
    if problem is not None:
        raise UserError(problem)
    return content
