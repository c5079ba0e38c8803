"""No run writes over what another one wrote, or into what another one is writing."""

import argparse
import copy
import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from dslm_patches.errors import UserError
from megatron.dslm.arguments.parse import parse_args
from megatron.dslm.logging.folder_locks import FolderLocks
from megatron.dslm.logging.run_folder import check_owner, mark_folders
from tests.corpus import data_flags
from tests.distributed.pool import RankPool

SHAPE = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "2", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--train-iters", "2", "--lr", "1e-3", "--eval-iters", "0"]


def flags(folder: Path) -> list[str]:
    return [*SHAPE, *TRAINING, *data_flags("bert"), "--save", f"{folder}/save", "--tensorboard-dir", f"{folder}/board"]


@pytest.fixture
def args(corpus: None, tmp_path: Path) -> argparse.Namespace:
    """Of a run that has marked its folder."""
    args = parse_args("bert", flags(tmp_path))
    args.run_id = "first"
    mark_folders(args)
    return args


def is_refused(args: Namespace, checkpoint: dict[str, object] | None, name: str = "tensorboard_dir") -> bool:
    try:
        check_owner(args, checkpoint)
    except UserError as error:
        flag = f"--{name.replace('_', '-')} {getattr(args, name)}"
        return f"{flag} holds what another run wrote" in str(error)
    return False


def test_a_folder_of_another_kind_is_another_runs_too(args: argparse.Namespace, tmp_path: Path) -> None:
    other = copy.copy(args)
    other.lr, other.save, other.tensorboard_dir = 1.0, args.tensorboard_dir, None
    other.trace_dir = None
    assert is_refused(other, None, "save")
    other.save, other.tensorboard_dir = None, args.save
    assert not is_refused(other, None)
    (tmp_path / "save" / "iter_0000008").mkdir(parents=True)
    assert is_refused(other, None)


@pytest.mark.slow
def test_a_run_that_came_between_the_check_and_the_lock_is_not_written_over(
    ranks: RankPool, corpus: None, tmp_path: Path
) -> None:
    """The first run begins and ends after the second one's flags were checked."""
    call = {"process_group": False, "model": "bert", "argv": flags(tmp_path)}
    for change in (["--lr", "2e-3"], ["--lr", "3e-3", "--save", f"{tmp_path}/other"]):
        late = [*flags(tmp_path), *change]
        code, output = ranks.run(
            1, "tests.reliability.fault_workers:run_after_another", **{**call, "other": flags(tmp_path), "argv": late}
        )[0]
        assert code == 2, output
        named = "--tensorboard-dir" if "--save" in change else "--save"
        assert output.splitlines()[-1].startswith(f"pretrain_bert.py: error: {named} {tmp_path}/"), output
        for one in ("save", "board"):
            shutil.rmtree(tmp_path / one)


def test_only_an_attempt_with_the_same_settings_begins_again(args: argparse.Namespace) -> None:
    assert not is_refused(args, None)
    for name, value in (("lr", 1.0), ("seed", 7), ("num_layers", 4), ("contents", {"data_path": [["0"], None]})):
        other = copy.copy(args)
        setattr(other, name, value)
        assert is_refused(other, None), name
    longer = copy.copy(args)
    longer.train_iters = 9
    assert not is_refused(longer, None)


@pytest.mark.parametrize(
    ("job", "restarts", "restart", "same"),
    [("none", 0, 0, False), ("none", 3, 0, False), ("none", 3, 1, True), ("named", 3, 0, True), ("other", 3, 1, False)],
)
def test_without_save_it_is_torchruns_own_restart(
    args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, job: str, restarts: int, restart: int, same: bool
) -> None:
    args.save = None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "named" if job == "other" else job)
    mark_folders(args)
    for name, value in (("RUN_ID", job), ("MAX_RESTARTS", restarts), ("RESTART_COUNT", restart)):
        monkeypatch.setenv(f"TORCHELASTIC_{name}", str(value))
    assert is_refused(args, None) is not same


def test_a_branch_does_not_write_over_the_one_that_went_further(args: argparse.Namespace, tmp_path: Path) -> None:
    checkpoint = {"run_id": "first", "iteration": 4}
    assert not is_refused(args, checkpoint)
    assert is_refused(args, {**checkpoint, "run_id": "second"})
    branch = copy.copy(args)
    branch.save = f"{tmp_path}/branch"
    branch.run_id = "first"
    assert not is_refused(branch, checkpoint)
    (tmp_path / "save" / "iter_0000008").mkdir(parents=True)
    assert is_refused(branch, checkpoint), "the run itself went on to 8"
    assert not is_refused(args, checkpoint), "it may go on from where it can"
    assert not is_refused(branch, {**checkpoint, "iteration": 8})


def test_a_folder_that_is_written_to_is_refused_to_a_second_run(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    argv = flags(tmp_path)
    call = {"process_group": False, "argv": argv, "model": "bert"}
    for held, named in (({"save": f"{tmp_path}/save"}, "--save"), ({"trace_dir": f"{tmp_path}/board"}, "--trace-dir")):
        locks = FolderLocks(Namespace(rank=0, world_size=1, **{"save": None, **held}))
        code, output = ranks.run(1, "tests.training.pretrain_workers:run", **call)[0]
        locks.release()
        assert code == 2, output
        line = output.splitlines()[-1]
        assert line.startswith("pretrain_bert.py: error: --")
        assert f"{next(iter(held.values()))} is being written to by another run (process {os.getpid()} on " in line
        assert not list((tmp_path / "board").glob("events*")), named
    assert ranks.run(1, "tests.training.pretrain_workers:run", **call)[0][0] == 0
    assert json.loads((tmp_path / "board" / "run.json").read_text())["save"] == f"{tmp_path}/save"


def test_no_two_ranks_of_a_run_lock_the_same_folder(tmp_path: Path) -> None:
    """--output-dir is --save in fine-tuning, and the first rank holds that."""
    both = {"save": f"{tmp_path}/run", "output_dir": f"{tmp_path}/run/", "world_size": 2}
    first = FolderLocks(Namespace(rank=0, **both))
    child = os.fork()
    if child == 0:
        FolderLocks(Namespace(rank=1, **both))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    first.release()
