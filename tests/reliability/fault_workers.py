"""Faults planted in the pool's ranks: where a checkpoint is looked at and loaded, and in a training step."""

import os
import resource
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NoReturn
from unittest import mock

import torch

from megatron.dslm.checkpoints import save
from megatron.dslm.checkpoints.load import newest_checkpoint
from megatron.dslm.checkpoints.manifest import UnreadError
from megatron.dslm.checkpoints.safe_loading import SafeReader
from megatron.dslm.faults.diagnosis import is_lost_connection
from megatron.dslm.training import launch
from megatron.dslm.training.step import Trainer
from tests.training.pretrain_workers import run


def out_of_memory() -> torch.Tensor:
    """As torch says it."""
    return torch.empty(1 << 50)


def read_error() -> bytes:
    """EIO: nothing is at address 0."""
    with open("/proc/self/mem", "rb") as file:
        return file.read(1)


def bug() -> None:
    """What Python says of a slip in the code."""
    _first, _second = (1, 2, 3)  # type: ignore[misc]


_PRETRAIN = "import pretrain_bert; pretrain_bert.main()"
FAULTS: dict[str, Callable[[], Any]] = {
    "memory": out_of_memory,
    "read error": read_error,
    "bug": bug,
    "leave": lambda: sys.exit(0),
    "leave with words": lambda: sys.exit("told by a library"),
}
PLACES = {"load": (SafeReader, "read_data"), "step": (Trainer, "step")}


def run_with_a_fault(argv: list[str], model: str, place: str, fault: str, ranks: list[int]) -> tuple[int, str]:
    """`run` with the fault where some ranks load their tensors, or train."""

    def fails(*_args: Any, **_kwargs: Any) -> NoReturn:
        FAULTS[fault]()
        raise AssertionError("nothing happened")

    if int(os.environ["RANK"]) not in ranks:
        return run(argv, model)
    with mock.patch.object(*PLACES[place], fails):
        return run(argv, model)


def look_without_files(root: str) -> str:
    """What comes of looking for the newest checkpoint where rank 1 may open no more files."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if rank == 1:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        return str(newest_checkpoint(Namespace(rank=rank, world_size=world_size), root, "--load", print))
    except UnreadError as error:
        return f"error: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def lose_rank_1() -> tuple[bool, str]:
    """Whether gloo's error of a peer that is gone is known for that, and the error."""
    torch.distributed.all_reduce(torch.zeros(1))
    if torch.distributed.get_rank() == 1:
        torch.distributed.destroy_process_group()
        return True, ""
    try:
        torch.distributed.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        return is_lost_connection(error), str(error)
    return False, "no error"


def run_with_a_signal(argv: list[str], model: str, number: int, rank: int, at: int) -> tuple[int, str]:
    """`run` in which one rank gets a signal in its step number `at`."""
    step, count = Trainer.step, 0

    def signalled(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    with mock.patch.object(Trainer, "step", signalled):
        return run(argv, model)


def run_killed_in_a_save(argv: list[str], model: str, at: int) -> tuple[int, str]:
    """`run` whose process is killed when the checkpoint of iteration `at` is written and not yet current."""
    publish = save.publish_folder

    def killed(aside: str, root: str, iteration: int) -> str:
        if iteration == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(aside, root, iteration)

    with mock.patch.object(save, "publish_folder", killed):
        return run(argv, model)


def run_after_another(argv: list[str], model: str, other: list[str]) -> tuple[int, str]:
    """`run` with `argv`, where a run with the flags `other` begins and ends once those of `argv` are checked."""
    initialize = launch.initialize

    def late(args: Namespace) -> Any:
        launch.initialize = initialize
        words = [sys.executable, "-c", _PRETRAIN, *other]
        keep = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
        subprocess.run(words, check=True, capture_output=True, env=keep)
        return initialize(args)

    with mock.patch.object(launch, "initialize", late):
        return run(argv, model)
