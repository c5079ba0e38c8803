"""megatron-core's GPT samples, without end and in an order that no run's length changes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from numpy.typing import NDArray

from megatron.dslm.data.epoch_order import later_epochs_shuffled
from megatron.dslm.data.sample_index import MissingIndexError, index_paths, load_index

_NO_TOKEN = -1
_INDICES = ("document_index", "sample_index", "shuffle_index")


@dataclass
class GptSamplesConfig(GPTDatasetConfig):
    """megatron-core's, with what an index belongs to, and who may build it."""

    content: str = ""
    """Digest of the data."""
    builds_index: bool = False
    """Builds an index that is missing, into path_to_cache."""


class GptSamples(GPTDataset):
    """Documents end to end, cut into sequences: item i is a function of i, the seed and the data, for every i.

    An epoch has each token once as a label, but for its first one: the tokens behind the last whole sequence, which
    megatron-core leaves out, are a sample too, padded, without a loss at the padding. Later epochs take the same
    sequences in another order.

    Attributes:
        epoch_size: samples an epoch.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pad_token_id = _NO_TOKEN
        self._whole = len(self.shuffle_index)
        tokens = self._get_num_tokens_per_epoch()
        # The last sequence's last label is the next one's first token.
        self.epoch_size = self._whole + (tokens - self._whole * self.config.sequence_length >= 2)
        self._order = later_epochs_shuffled(self.epoch_size, self.config.random_seed)

    @staticmethod
    def _key_config_attributes() -> list[str]:
        return [*GPTDataset._key_config_attributes(), "content"]

    def __len__(self) -> int:
        return self.epoch_size

    def _build_document_sample_shuffle_indices(self) -> Any:
        paths = index_paths(self, _INDICES)
        try:
            return tuple(map(load_index, paths))
        except MissingIndexError:
            if not self.config.builds_index:
                raise
            return super()._build_document_sample_shuffle_indices()

    def _query_document_sample_shuffle_indices(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        place = self._order[number]
        if place < self._whole:
            return super()._query_document_sample_shuffle_indices(place)
        first, offset = map(int, self.sample_index[-1])
        documents = np.array(self.document_index[first:], dtype=np.int64)
        parts = [self.dataset.get(one, offset=0 if row else offset) for row, one in enumerate(documents)]
        text = np.concatenate(parts, dtype=np.int64)
        padding = self.config.sequence_length + 1 - len(text)
        return np.pad(text, (0, padding), constant_values=_NO_TOKEN), documents
