"""megatron-core's BERT samples, without end and in an order that no run's length changes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from megatron.core.datasets import helpers
from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset, BERTMaskedWordPieceDatasetConfig
from numpy.typing import NDArray

from megatron.dslm.data.epoch_order import EpochOrder, later_epochs_shuffled
from megatron.dslm.data.sample_index import MissingIndexError, index_paths, load_index

_NO_TOKEN = -1
_NO_LIMIT = 2**63 - 1


@dataclass
class BertSamplesConfig(BERTMaskedWordPieceDatasetConfig):
    """megatron-core's, with what an index belongs to, and who may build it."""

    content: str = ""
    """Digest of the data."""
    builds_index: bool = False
    """Builds an index that is missing, into path_to_cache."""


class BertSamples(BERTMaskedWordPieceDataset):
    """Sentence pairs with masked tokens: item i is a function of i, the seed and the data, for every i.

    An epoch is one of megatron-core's: each sentence of a usable document in one sample. Later epochs take the same
    samples in another order, split and masked anew.

    Attributes:
        epoch_size: samples an epoch.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # An id that no token has: megatron-core takes each [PAD] in the text for padding, and where its id is not 0
        # attends to the padding and gives it token types that there are not.
        self._pad_token_id = _NO_TOKEN

    @staticmethod
    def _key_config_attributes() -> list[str]:
        return [*BERTMaskedWordPieceDataset._key_config_attributes(), "content"]

    def __len__(self) -> int:
        return self.epoch_size

    def __getitem__(self, number: int) -> dict[str, Any]:
        sample = super().__getitem__(number)
        padding = sample["padding_mask"] == _NO_TOKEN
        for name, filler in (("text", self.config.tokenizer.pad), ("types", 0), ("padding_mask", 0)):
            sample[name][padding] = filler
        sample["labels"][sample["loss_mask"] == 0] = _NO_TOKEN
        return sample

    def _build_sample_index(self, sequence_length: int, min_sentences_per_sample: int) -> Any:
        """One epoch: megatron-core's own gives None to its C++ when it is asked for that, which that refuses."""
        [path] = index_paths(self, ["sample_index"])
        try:
            index = load_index(path)
        except MissingIndexError:
            if not self.config.builds_index:
                raise
            index = self._one_epoch(sequence_length, min_sentences_per_sample)
            np.save(path, index, allow_pickle=False)
        self.epoch_size = len(index)
        return _Ordered(index, later_epochs_shuffled(len(index), self.config.random_seed))

    def _one_epoch(self, sequence_length: int, min_sentences_per_sample: int) -> NDArray[Any]:
        documents = self.dataset.document_indices[np.append(self.indices, self.indices[-1] + 1)]
        return helpers.build_mapping(
            documents,
            self.dataset.sequence_lengths,
            1,
            _NO_LIMIT,
            sequence_length,
            self.config.short_sequence_probability,
            self.config.random_seed,
            False,
            min_sentences_per_sample,
        )


class _Ordered:
    """Rows of an index by the number of a sample in an endless run: what megatron-core's `__getitem__` looks up."""

    def __init__(self, index: NDArray[Any], order: EpochOrder) -> None:
        self._index, self._order = index, order

    def __getitem__(self, number: int) -> NDArray[Any]:
        return self._index[self._order[number]]
