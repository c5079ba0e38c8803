"""Reads megatron-core's distributed checkpoints without running anything that a stranger put into one.

torch reads the checkpoint's index, `.metadata`, and megatron-core's per-rank objects by plain pickle, which runs what
the file says. Here the index may name the classes it is made of and no others, objects come as torch's weights-only
loader takes them, and no name in the index leads out of the folder.
"""

import os
import pickle
import stat
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from megatron.core.dist_checkpointing.strategies import torch as torch_strategies
from megatron.core.dist_checkpointing.strategies.base import StrategyAction, register_default_strategy
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME, TorchCommonLoadStrategy
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, ReadItem

from megatron.dslm.faults.diagnosis import is_out_of_memory

Decoded = TypeVar("Decoded")

_INDEX_CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.distributed.checkpoint.planner": ("SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
}


class UnsafeCheckpointError(ValueError):
    """A checkpoint holds what could run code, leads out of its folder, or is not what it says."""


class _IndexUnpickler(pickle.Unpickler):
    """Knows the classes of torch's checkpoint index alone."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or name in _INDEX_CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise UnsafeCheckpointError(f".metadata asks for {module}.{name}, which no checkpoint index needs: not loaded")


class SafeReader(FileSystemReader):
    """torch's reader of a checkpoint folder, with the index and the objects read safely."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._index: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index of the folder.

        Raises:
            UnsafeCheckpointError: it asks for something else than an index is made of, or names files elsewhere.
        """
        if self._index is None:
            path = Path(self._get_metadata_path(kwargs.get("rank")))
            _require_plain_file(path)
            with path.open("rb") as file:
                index = decode(path, _IndexUnpickler(file).load)
            if not (
                isinstance(index, Metadata)
                and isinstance(index.state_dict_metadata, dict)
                and isinstance(index.storage_data, dict)
                and all(isinstance(place, _StorageInfo) for place in index.storage_data.values())
            ):
                raise UnsafeCheckpointError(f"{path} is not a checkpoint index")
            for place in index.storage_data.values():
                if os.path.basename(place.relative_path) != place.relative_path:
                    raise UnsafeCheckpointError(
                        f"{path} leads out of the folder, to {place.relative_path!r}: not loaded"
                    )
                _require_plain_file(Path(self.path) / place.relative_path)
            index.storage_meta = index.storage_meta or StorageMeta()
            index.storage_meta.load_id = self.load_id
            self._index = index
        return self._index

    def read_data(self, plan: Any, planner: Any) -> Any:
        """As torch's, with objects by the weights-only loader, and what an item's bytes are not told by its name.

        Raises:
            UnsafeCheckpointError: an item is missing, or is not what the index says.
        """
        for name, items in groupby(sorted(plan.items, key=self._file_of), self._file_of):
            with (Path(self.path) / name).open("rb") as file:
                for item in items:
                    view = self._slice_file(file, self.storage_data[item.storage_index])
                    _take(item, decode(f"{name}: {item.storage_index.fqn}", partial(_read_item, item, view)), planner)
        done: torch.futures.Future[None] = torch.futures.Future()
        done.set_result(None)
        return done

    def _file_of(self, item: ReadItem) -> str:
        place = self.storage_data.get(item.storage_index)
        if place is None:
            raise UnsafeCheckpointError(f".metadata does not say where {item.storage_index.fqn} is")
        return str(place.relative_path)


class SafeCommonLoad(TorchCommonLoadStrategy):
    """megatron-core's reader of common.pt, by the weights-only loader whatever the environment says."""

    def load_common(self, checkpoint_dir: str | Path) -> Any:
        path = Path(checkpoint_dir) / COMMON_STATE_FNAME
        _require_plain_file(path)
        return decode(path, lambda: dict(torch.load(path, map_location="cpu", weights_only=True)))


def install() -> None:
    """Makes every load by megatron-core's dist_checkpointing in this process a safe one."""
    torch_strategies._get_filesystem_reader = lambda folder, cache_metadata=False: SafeReader(folder)
    register_default_strategy(StrategyAction.LOAD_COMMON, "torch", 1, SafeCommonLoad())


def decode(what: str | Path, read: Callable[[], Decoded]) -> Decoded:
    """What `read` makes of bytes, and nothing else: what it raises is a fault of the bytes, whatever class it is of.

    Raises:
        UnsafeCheckpointError: it raised.
        OSError, MemoryError, RuntimeError: the bytes could not be read, or there is no memory for them.
    """
    try:
        return read()
    except Exception as error:
        if isinstance(error, (OSError, UnsafeCheckpointError)) or is_out_of_memory(error):
            raise
        line = next((one for one in str(error).splitlines() if one.strip()), type(error).__name__)
        raise UnsafeCheckpointError(f"{what} cannot be decoded: {line}") from error


def _read_item(item: ReadItem, view: Any) -> Any:
    """An object, or the part of a tensor that a rank wants, from its bytes."""
    loaded = torch.load(view, map_location="cpu", weights_only=True)
    if item.type == LoadItemType.BYTE_IO:
        return loaded
    return narrow_tensor_by_index(loaded, item.storage_offsets, item.lengths)


def _take(item: ReadItem, loaded: Any, planner: Any) -> None:
    """Puts what was read where torch's planner wants it, whose own way with objects is plain pickle."""
    name = item.dest_index.fqn
    if item.type != LoadItemType.BYTE_IO:
        target = planner.resolve_tensor(item).detach()
        if target.size() != loaded.size():
            raise UnsafeCheckpointError(f"{name} is {list(loaded.size())}, and the index says {list(target.size())}")
        target.copy_(loaded)
        planner.commit_tensor(item, target)
    elif planner.flatten_state_dict:
        set_element(planner.original_state_dict, planner.mappings[name], loaded)
    else:
        planner.state_dict[name] = loaded


def _require_plain_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise UnsafeCheckpointError(f"{path} is not a plain file: links are not followed")
