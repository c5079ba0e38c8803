"""Checkpoints as a stranger could make them: pickles that create a file where they are loaded, names that lead away."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

from megatron.dslm.checkpoints.manifest import MANIFEST, write_manifest


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self._mark), "w")


def sign(folder: Path) -> None:
    """Writes the manifest anew, as whoever changes the files can."""
    (folder / MANIFEST).unlink()
    write_manifest(str(folder), {})


def poison_index(folder: Path, mark: Path) -> None:
    """The bomb beside everything else in torch's index."""
    index = pickle.loads((folder / ".metadata").read_bytes())
    index.planner_data = Bomb(mark)
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def poison_common(folder: Path, mark: Path) -> None:
    """The bomb in what all ranks share."""
    common = torch.load(folder / "common.pt", weights_only=True)
    torch.save({**common, "bomb": Bomb(mark)}, folder / "common.pt")


def poison_item(folder: Path, mark: Path, name: str) -> None:
    """The bomb as one item's bytes, behind those that are there: an object of a rank, or a tensor."""
    index = pickle.loads((folder / ".metadata").read_bytes())
    content = io.BytesIO()
    torch.save([Bomb(mark)], content)
    for item, place in index.storage_data.items():
        if item.fqn.startswith(name):
            path = folder / place.relative_path
            place.offset, place.length = path.stat().st_size, len(content.getvalue())
            with path.open("ab") as file:
                file.write(content.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def lead_away(folder: Path, mark: Path) -> None:
    """The index names a file outside the folder."""
    index = pickle.loads((folder / ".metadata").read_bytes())
    for place in index.storage_data.values():
        (mark.parent / "outside.distcp").write_bytes((folder / place.relative_path).read_bytes())
        place.relative_path = "../../outside.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def leave_out(folder: Path, _mark: Path, name: str) -> None:
    """The index does not name a tensor."""
    index = pickle.loads((folder / ".metadata").read_bytes())
    del index.state_dict_metadata[name]
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def garble(folder: Path, _mark: Path, pattern: str) -> None:
    """Files of another kind."""
    for path in folder.glob(pattern):
        path.write_bytes(b"no checkpoint" * 100)


def unpickle_as_torch_does(folder: Path) -> None:
    """What a reader without care does with the index."""
    with (folder / ".metadata").open("rb") as file:
        pickle.load(file)


def numpy_pickle(path: Path, mark: Path) -> None:
    """A pickle where an index of numbers should be: numpy.load(allow_pickle=True) runs it."""
    path.write_bytes(pickle.dumps(Bomb(mark)))
