"""The data sets of a pretraining run: megatron-core's, in an order that does not depend on the run's length."""

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.utils import Split
from numpy.typing import NDArray

from dslm_patches.errors import UserError
from megatron.dslm.data.blend import Blend
from megatron.dslm.data.content import split_blend
from megatron.dslm.data.sample_index import MissingIndexError, build_aside
from megatron.dslm.faults.stop import StopRequest

_LOOK_SECONDS = 0.02
_NAMES = {Split.train: "train", Split.valid: "validation", Split.test: "test"}


def common_dataset_arguments(args: Namespace) -> dict[str, Any]:
    """What the configurations of all of megatron-core's datasets share."""
    prefixes, _ = split_blend(args.data_path or args.train_data_path)
    cache = args.data_cache_path or os.path.join(os.path.dirname(os.path.abspath(prefixes[-1])), "cache")
    return {
        "random_seed": args.seed,
        "sequence_length": args.seq_length,
        "blend": (prefixes, None),
        "split": args.split or "1,0,0",
        "path_to_cache": cache,
        "tokenizer": args.tokenizer,
    }


def build_datasets(args: Namespace, dataset: tuple[type, Any], stop: StopRequest | None = None) -> list[Any]:
    """Train, validation and test sets, without end; None where a split has no share or is not evaluated.

    The first rank builds the indices that are missing in the cache, then the first ranks of other machines what they
    do not see. All ranks call it.

    Args:
        dataset: class and configuration of the samples.
        stop: the run's, whose signals are heard while an index is built.

    Raises:
        UserError: a split without a sample.
    """
    parts = list(parts_of(args, *dataset))
    for builds in (args.rank == 0, os.environ.get("LOCAL_RANK", "0") == "0"):
        if builds:
            for part in parts:
                part.build_if_missing(stop)
        _wait_for_all(stop)
    sets: list[Any] = []
    for split in Split:
        own = [part for part in parts if part.split is split]
        made = [part.make() for part in own]
        for part, one in zip(own, made, strict=True):
            if one.epoch_size == 0:
                raise UserError(f"{part.flag}: no sample can be made of the {_NAMES[split]} share of {part.prefix}")
        if len(made) > 1:
            sets.append(Blend(made, split_blend(getattr(args, own[0].name))[1]))
        else:
            sets.append(next(iter(made), None))
    return sets


def _wait_for_all(stop: StopRequest | None) -> None:
    """A barrier at which signals are heard: another rank may build for hours."""
    work = torch.distributed.barrier(async_op=True)
    while stop is not None and not work.is_completed():
        stop.leave_if_asked("while another rank built indices of samples")
        time.sleep(_LOOK_SECONDS)
    work.wait()


def parts_of(args: Namespace, dataset_class: type, config: Any) -> Iterator["Part"]:
    """The share of each prefix in each split that the run uses."""
    for split in Split:
        name = "data_path" if args.data_path else ("train_data_path", "valid_data_path", "test_data_path")[split.value]
        edges = config.split_matrix[split.value] if args.data_path else (0.0, 1.0)
        if edges is None or (split is not Split.train and not args.eval_iters):
            continue
        for prefix in split_blend(getattr(args, name))[0]:
            yield Part(dataset_class, replace(config, content=args.data_content[prefix]), prefix, split, edges, name)


class Part:
    """The samples that one prefix has for one split.

    Attributes:
        prefix, split, edges: of the data, whose digest is `content`, the share that the split has.
        name, flag: of the argument that names the prefix.
    """

    def __init__(
        self, dataset_class: Any, config: Any, prefix: str, split: Split, edges: tuple[float, float], name: str
    ) -> None:
        self.prefix, self.split, self.name, self.flag = prefix, split, name, "--" + name.replace("_", "-")
        self.edges, self.content = edges, config.content
        self._class, self._config = dataset_class, config
        self._tokens = dataset_class.build_low_level_dataset(prefix, config)
        begin, end = (round(edge * dataset_class.numel_low_level_dataset(self._tokens)) for edge in edges)
        self._indices = np.arange(begin, end, dtype=np.int32)

    def make(self, **settings: Any) -> Any:
        config = replace(self._config, **settings)
        return self._class(self._tokens, self.prefix, self._indices, None, self.split, config)

    @property
    def tokens(self) -> NDArray[np.integer]:
        """All tokens of the share, one after the other, memory-mapped [tokens]."""
        index = self._tokens.index
        ends = np.append(index.sequence_pointers, os.path.getsize(f"{self.prefix}.bin"))
        bounds = self._indices[0], self._indices[-1] + 1
        # BERT's are documents, GPT's sequences.
        if self._class.numel_low_level_dataset(self._tokens) != len(index.sequence_pointers):
            bounds = index.document_indices[bounds[0]], index.document_indices[bounds[1]]
        begin, end = (int(ends[bound]) // index.dtype_size for bound in bounds)
        return np.memmap(f"{self.prefix}.bin", index.dtype, "r")[begin:end]

    def build_if_missing(self, stop: StopRequest | None) -> None:
        try:
            self.make()
        except MissingIndexError:
            name = f"{self.prefix}, {_NAMES[self.split]}"
            build_aside(self._build, self._config.path_to_cache, name, stop)

    def _build(self, folder: str) -> None:
        self.make(path_to_cache=folder, builds_index=True)
