"""A file of a checkpoint that gives a read error, for true: not damage, so it is neither passed over nor deleted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.dslm.checkpoints.folder import find_checkpoint, iteration_folder, keep_only, prune, saved_iterations
from megatron.dslm.checkpoints.manifest import MANIFEST, check_digests, check_sizes, write_manifest
from tests.corpus import ROOT
from tests.reliability.runs import can_mount

DATA = "__0_0.distcp"


def checkpoint(root: Path, iteration: int) -> Path:
    """A whole checkpoint to whoever reads no tensors; its data is an empty file."""
    folder = Path(iteration_folder(str(root), iteration))
    folder.mkdir(parents=True)
    for name in ("arguments.json", "metadata.json"):
        (folder / name).write_text("{}")
    (folder / DATA).write_bytes(b"")
    write_manifest(str(folder), {})
    return folder


def with_read_error(path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs Python where reading `path` gives EIO, as a broken disk does: its own memory at address 0 lies there."""
    script = f'mount --bind /proc/$$/mem "{path}" || exit 99; exec "$@"'
    words = ["unshare", "-rm", "bash", "-c", script, "bash", sys.executable, *argv]
    return subprocess.run(words, cwd=ROOT, text=True, capture_output=True, timeout=240)


@pytest.fixture
def mounts(tmp_path: Path) -> None:
    """Skips where a user may not mount."""
    if not can_mount(tmp_path):
        pytest.skip("no user namespaces here: a read error cannot be provoked")


LOOK = """
import sys
from megatron.dslm.checkpoints.folder import find_checkpoint, iteration_folder, prune, saved_iterations
from megatron.dslm.checkpoints.manifest import UnreadError, check_digests, check_sizes
root = sys.argv[1]
for look in (check_sizes, lambda folder: check_digests(folder, ["__0_0.distcp"])):
    try:
        print(look(iteration_folder(root, 20)))
    except UnreadError as error:
        print(error)
try:
    print(find_checkpoint(root))
except UnreadError as error:
    print(error)
prune(root, 40, 1)
print(saved_iterations(root))
"""


@pytest.mark.parametrize("name", [DATA, MANIFEST])
def test_a_read_error_is_not_damage(mounts: None, tmp_path: Path, name: str) -> None:
    folders = {number: checkpoint(tmp_path, number) for number in (10, 20)}
    looked = with_read_error(folders[20] / name, "-c", LOOK, str(tmp_path))
    assert looked.returncode == 0, looked.stderr
    sizes, digests, found, left = looked.stdout.splitlines()
    error = f"{folders[20] / name} could not be read: Input/output error"
    assert digests.startswith(error)
    if name == MANIFEST:
        assert sizes.startswith(error)
        assert found.startswith(f"--load: {error}"), "the older one is not taken in its place"
        assert left == "[20, 10]", "the one that could not be read is neither deleted nor counted"
    else:
        assert (sizes, found) == ("None", str(folders[20]))
        assert left == "[20]"


def test_missing_and_cut_files_are_damage(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 10)
    (folder / DATA).unlink()
    assert check_sizes(str(folder)) == f"its {DATA} is missing"
    assert check_digests(str(folder), [DATA]) == f"its {DATA} is missing"
    (folder / DATA).write_bytes(b"more")
    assert check_sizes(str(folder)) == f"its {DATA} has 4 bytes of 0"
    (folder / MANIFEST).unlink()
    assert check_sizes(str(folder)) == f"its {MANIFEST} is missing"


def test_pruning_leaves_what_is_newer(tmp_path: Path) -> None:
    folders = {number: checkpoint(tmp_path, number) for number in (10, 20, 30, 40, 50, 60)}
    for number in (20, 60):
        (folders[number] / DATA).unlink()
    prune(str(tmp_path), 40, 2)
    assert saved_iterations(str(tmp_path)) == [60, 50, 40, 30], "10 is old, 20 is incomplete, 50 may be someone else's"
    shutil.rmtree(folders[60])
    assert find_checkpoint(str(tmp_path)) == str(folders[50])


def test_a_folder_of_the_best_holds_one(tmp_path: Path) -> None:
    for number in (10, 20, 30):
        checkpoint(tmp_path, number)
    keep_only(str(tmp_path), 20)
    assert saved_iterations(str(tmp_path)) == [20]
