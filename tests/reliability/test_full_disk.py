"""A disk that fills up in a save: it is said, what was saved stays, of the failed save nothing, the run goes on."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.dslm.checkpoints.folder import iteration_folder, saved_iterations
from megatron.dslm.checkpoints.manifest import check_digests, read_manifest
from tests.corpus import ROOT
from tests.curves import curves
from tests.reliability.runs import TP2, Run, can_mount, command

LARGEST_FILE = 500_000
"""Bytes: less than a file of tensors, more than what stands beside them."""


def small_disk(argv: list[str], place: Path, kept: Path) -> tuple[int, str]:
    """A run in a mount namespace where `place` is a file system of 9 MB; what it holds at the end goes to `kept`.

    Temporary files go there too.
    """
    torchrun = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 pretrain_bert.py"
    script = (
        f"mount -t tmpfs -o size=9m tmpfs {place} || exit 99; export TMPDIR={place}; "
        f"{torchrun} {' '.join(argv)}; code=$?; cp -r {place} {kept}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], cwd=ROOT, text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


def complete(root: Path) -> list[int]:
    """The checkpoints, all of which must be whole."""
    saved = saved_iterations(str(root))
    for number in saved:
        folder = iteration_folder(str(root), number)
        assert check_digests(folder, read_manifest(folder)) is None
    return saved


@pytest.fixture(scope="module")
def straight(corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose disk has room."""
    folder = tmp_path_factory.mktemp("straight")
    assert Run(command(folder, 10, *TP2)).wait()[0] == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["--async-save"]])
def test_a_full_disk_costs_the_save_alone(straight: Path, tmp_path: Path, extra: list[str]) -> None:
    disk, run = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("no user namespaces here: a small file system cannot be mounted")
    run.mkdir()
    argv = command(run, 10, *TP2, "--save-interval", "2", *extra)
    argv = [word.replace(f"{run}/save", str(disk)) for word in argv]
    code, output = small_disk(argv, disk, run / "save")
    assert code == 1, output
    assert output.count("could not be saved") >= 2, output
    assert "No space left on device" in output or "could not be written whole (0 MB are free)" in output
    assert "stopped: iteration 10 could not be saved" in output
    assert "Traceback" not in output.partition("stopped: ")[0], output
    assert complete(run / "save") == [6, 4, 2]
    assert not list((run / "save").glob("*incomplete*"))
    code, output = Run(command(run, 10, *TP2)).wait()
    assert code == 0, output
    assert "at iteration 6 of 10" in output
    assert curves(run) == curves(straight)


def test_a_write_that_fails_is_no_checkpoint(corpus: None, tmp_path: Path) -> None:
    """By the kernel's limit on the size of files, which every machine has."""
    argv = command(tmp_path, 4, *TP2, "--save-interval", "2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, limits[1]))
    try:
        run = Run(argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    code, output = run.wait()
    assert code == 1, output
    assert "warning: iteration 2 could not be saved" in output
    assert "could not be written whole" in output
    assert saved_iterations(str(tmp_path / "save")) == []
    assert not list((tmp_path / "save").glob("*incomplete*"))
