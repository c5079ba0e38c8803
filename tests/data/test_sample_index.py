"""The process that builds an index: what ends it is told as what it is, and what it leaves is removed."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dslm_patches.errors import UserError
from megatron.dslm.data.sample_index import build_aside
from megatron.dslm.faults.stop import StoppedEarly


def killed_by(number: int) -> Callable[[str], None]:
    return lambda _folder: os.kill(os.getpid(), number)


def fails_with(number: int, path: str | None = None) -> Callable[[str], None]:
    def build(folder: str) -> None:
        raise OSError(number, os.strerror(number), path and path.format(folder=folder))

    return build


def test_a_signal_to_the_whole_job_is_no_bug(tmp_path: Path) -> None:
    with pytest.raises(StoppedEarly, match="SIGTERM received while the index of text was built"):
        build_aside(killed_by(signal.SIGTERM), str(tmp_path), "text")
    with pytest.raises(KeyboardInterrupt):
        build_aside(killed_by(signal.SIGINT), str(tmp_path), "text")
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        build_aside(killed_by(signal.SIGKILL), str(tmp_path), "text")
    assert list(tmp_path.iterdir()) == []


def test_only_what_befalls_the_cache_is_told_of_it(tmp_path: Path) -> None:
    for build in (fails_with(errno.ENOSPC), fails_with(errno.EACCES, "{folder}/a.npy")):
        with pytest.raises(UserError, match=f"--data-cache-path {tmp_path}: the index of samples cannot be written"):
            build_aside(build, str(tmp_path), "text")
    for build in (fails_with(errno.EIO), fails_with(errno.ENOENT, "elsewhere/text.idx")):
        with pytest.raises(OSError, match=r"Errno (5|2)") as error:
            build_aside(build, str(tmp_path), "text")
        assert "in build" in error.value.__notes__[0], "its own traceback"


def test_what_killed_builds_left_is_removed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        build_aside(killed_by_parent, str(tmp_path), "text")
    while not (parts := list(tmp_path.glob("building-*/part"))) or not parts[0].read_text():
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    builder = int(parts[0].read_text())
    for _ in range(100):
        if not psutil.pid_exists(builder) or psutil.Process(builder).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the build outlived its run")
    assert len(list(tmp_path.iterdir())) == 1
    build_aside(lambda folder: Path(folder, "whole.npy").touch(), str(tmp_path), "text")
    assert [one.name for one in tmp_path.iterdir()] == ["whole.npy"]


def killed_by_parent(folder: str) -> None:
    """Waits in the middle of its work, for ever."""
    Path(folder, "part").write_text(str(os.getpid()))
    while True:
        pass
