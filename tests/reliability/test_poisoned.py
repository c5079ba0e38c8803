"""What a stranger gives cannot run code here, wherever in a checkpoint or a cache it lies; negative controls beside."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy
import pytest

from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.reliability import poison

WORKER = "tests.training.pretrain_workers:run"
SHAPE = (
    "--num-layers 2 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --dslm --dslm-k 1 --micro-batch-size 2 "
    "--lr 1e-3"
)
RUN = [*SHAPE.split(), "--train-iters", "4", "--eval-iters", "0"]


def run(ranks: RankPool, *extra: str, data: list[str] | None = None) -> tuple[int, str]:
    """Exit code and output of a run of one rank."""
    argv = [*RUN, *(data or data_flags("bert")), *extra]
    return ranks.run(1, WORKER, process_group=False, argv=argv, model="bert")[0]


@pytest.fixture(scope="module")
def saved(ranks: RankPool, corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of iteration 2."""
    folder = tmp_path_factory.mktemp("saved")
    code, output = run(ranks, "--save", str(folder), "--exit-interval", "2")
    assert code == 0, output
    return folder


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "index": poison.poison_index,
    "common": poison.poison_common,
    "object": partial(poison.poison_item, name="rng_state"),
    "tensor": partial(poison.poison_item, name="embedding.word_embeddings.weight"),
    "way out": poison.lead_away,
}


# Weights to start from are read without the objects of ranks.
PAIRS = [(place, "--load") for place in PLACES] + [
    (one, "--pretrained-checkpoint") for one in PLACES if one != "object"
]


FOREIGN: dict[str, Callable[[Path, Path], None]] = {
    "embedding.word_embeddings.weight": partial(poison.leave_out, name="embedding.word_embeddings.weight"),
    ".metadata cannot be decoded": partial(poison.garble, pattern=".metadata"),
    "common.pt cannot be decoded": partial(poison.garble, pattern="common.pt"),
    "cannot be decoded": partial(poison.garble, pattern="*.distcp"),
}


@pytest.mark.parametrize("message", FOREIGN)
def test_a_foreign_checkpoint_is_refused(ranks: RankPool, saved: Path, tmp_path: Path, message: str) -> None:
    root = tmp_path / "run"
    shutil.copytree(saved, root)
    folder = root / "iter_0000002"
    FOREIGN[message](folder, tmp_path)
    poison.sign(folder)
    code, output = run(ranks, "--load", str(root))
    assert code == 2, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("pretrain_bert.py: ")]
    assert line.startswith(f"pretrain_bert.py: error: --load: {folder} cannot be read"), output
    assert message in line


@pytest.mark.parametrize(("place", "flag"), PAIRS)
def test_a_poisoned_checkpoint_is_refused(ranks: RankPool, saved: Path, tmp_path: Path, place: str, flag: str) -> None:
    root, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(saved, root)
    folder = root / "iter_0000002"
    PLACES[place](folder, mark)
    poison.sign(folder)
    code, output = run(ranks, flag, str(root))
    assert not mark.exists(), "code ran"
    assert code == 2, output
    line = output.strip().splitlines()[-1]
    assert line.startswith(f"pretrain_bert.py: error: {flag}: {folder} cannot be read"), output
    if place == "index":
        poison.unpickle_as_torch_does(folder)
        assert mark.exists(), "the poison works where it is let"


def test_a_poisoned_cache_of_the_data_is_refused(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    cache, mark = tmp_path / "cache", tmp_path / "mark"
    data = data_flags("bert")
    data[data.index("--data-cache-path") + 1] = str(cache)
    assert run(ranks, "--train-iters", "1", data=data)[0] == 0
    indices = sorted(cache.glob("*.npy"))
    assert indices
    for path in indices:
        poison.numpy_pickle(path, mark)
    code, output = run(ranks, "--train-iters", "1", data=data)
    assert not mark.exists(), "code ran"
    assert code == 2, output
    assert f"{cache}/" in output.splitlines()[-1]
    assert "--data-cache-path" in output.splitlines()[-1]
    numpy.load(indices[0], allow_pickle=True)
    assert mark.exists(), "the poison works where it is let"


def test_a_save_does_not_follow_links(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    """Links that wait in the folder for what a save writes."""
    root, outside = tmp_path / "run", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "file").write_text("mine")
    (root / "latest_checkpointed_iteration.txt").symlink_to(outside / "file")
    (root / "iter_0000002.incomplete-00000000").symlink_to(outside)
    (root / "iter_0000002").symlink_to(outside)
    code, output = run(ranks, "--load", str(root))
    assert code == 2, output
    (root / "iter_0000002").unlink()
    (root / "latest_checkpointed_iteration.txt").unlink()
    (root / "latest_checkpointed_iteration.txt.incomplete-00000000").symlink_to(outside / "file")
    code, output = run(ranks, "--save", str(root), "--exit-interval", "2")
    assert code == 0, output
    assert (outside / "file").read_text() == "mine"
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert not (root / "iter_0000002").is_symlink()
