"""megatron-core's BERT samples where [PAD] is not the vocabulary's first token."""

from typing import Any

import numpy
from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset

_MARK = -1


class PaddedByAnyToken(BERTMaskedWordPieceDataset):
    """Samples as megatron-core makes them, padded by any id.

    It writes the pad id into padding mask and token types too, as if it were 0. Here it pads with a mark that is no
    token, and the mark gives way to what belongs there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pad_token_id = _MARK

    def __getitem__(self, idx: int) -> dict[str, int | numpy.ndarray]:
        """A sample of megatron-core's keys, its arrays [s]."""
        sample: dict[str, Any] = super().__getitem__(idx)
        padding = sample["padding_mask"] == _MARK
        sample["text"][padding] = self.config.tokenizer.pad
        sample["types"][padding] = 0
        sample["padding_mask"][padding] = 0
        sample["labels"][sample["loss_mask"] == 0] = -1
        return sample
