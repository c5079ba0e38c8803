"""Reads megatron-core's distributed checkpoints without running anything that a stranger put into one.

torch reads the checkpoint's index, `.metadata`, and megatron-core's per-rank objects by plain pickle, which runs what
the file says. Here the index may name the classes it is made of and no others, objects come as torch's weights-only
loader takes them, and no name in the index leads out of the folder.
"""

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import torch as torch_strategies
from megatron.core.dist_checkpointing.strategies.base import StrategyAction, register_default_strategy
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME, TorchCommonLoadStrategy
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

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
    """A checkpoint holds what could run code, or leads out of its folder."""


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
                index = _IndexUnpickler(file).load()
            if not isinstance(index, Metadata) or not isinstance(index.storage_data, dict):
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
        """As torch's, with objects by the weights-only loader."""

        def load_bytes(read_item: Any, value: Any) -> None:
            name = read_item.dest_index.fqn
            loaded = torch.load(value, weights_only=True)
            if planner.flatten_state_dict:
                set_element(planner.original_state_dict, planner.mappings[name], loaded)
            else:
                planner.state_dict[name] = loaded

        planner.load_bytes = load_bytes
        return super().read_data(plan, planner)


class SafeCommonLoad(TorchCommonLoadStrategy):
    """megatron-core's reader of common.pt, by the weights-only loader whatever the environment says."""

    def load_common(self, checkpoint_dir: str | Path) -> Any:
        path = Path(checkpoint_dir) / COMMON_STATE_FNAME
        _require_plain_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def install() -> None:
    """Makes every load by megatron-core's dist_checkpointing in this process a safe one."""
    torch_strategies._get_filesystem_reader = lambda folder, cache_metadata=False: SafeReader(folder)
    register_default_strategy(StrategyAction.LOAD_COMMON, "torch", 1, SafeCommonLoad())


def _require_plain_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise UnsafeCheckpointError(f"{path} is not a plain file: links are not followed")
