"""BERT's masked-LM head on the positions that carry a label: a seventh of them, and most of a small model's time."""

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.bert.bert_model import BertModel
from torch import Tensor


@dataclass
class Labelled:
    """The labelled positions of a micro-batch.

    Attributes:
        rows: [n], rows of this rank's hidden states [s, b, h] seen as [s b, h]; under sequence parallelism, of its part
            of the sequence. All ranks have as many: the short ones repeat row 0.
        labels: [1, n of all parts], token ids.
        weights: [n of all parts], 1 for a label, 0 for a repeated row.
    """

    rows: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: Any) -> "Labelled":
        """The same on a device."""
        return Labelled(*(one.to(device, non_blocking=True) for one in (self.rows, self.labels, self.weights)))


def labelled(labels: Tensor, loss_mask: Tensor, parts: int, part: int) -> Labelled:
    """The positions with a loss, in the order of the parts of the sequence.

    Args:
        labels, loss_mask: [b, s], on the CPU, so that counting them waits for no device.
        parts, part: into how many the sequence is cut, and which one is this rank's.
    """
    by_part = [one.t().reshape(-1) for one in loss_mask.bool().chunk(parts, dim=1)]  # each [s / parts, b] as rows
    found = [one.nonzero().view(-1) for one in by_part]
    most = max(1, *(len(one) for one in found))
    rows = torch.zeros(parts, most, dtype=torch.int64)
    weights = torch.zeros(parts, most)
    for number, one in enumerate(found):
        rows[number, : len(one)] = one
        weights[number, : len(one)] = 1.0
    tokens = torch.stack([one.t().reshape(-1) for one in labels.chunk(parts, dim=1)])
    return Labelled(rows[part], tokens.gather(1, rows).view(1, -1), weights.view(-1))


class LabelledBert(BertModel):
    """megatron-core's BertModel with the head on chosen rows where `labelled` is given; otherwise on all positions.

    Attributes:
        skips_site, in_full: the tracer's, which sets `in_full` while it measures the head, on all positions then
            (`dslm_patches.tracing.skipping.SkipsSite`).
    """

    skips_site: str = "head"
    in_full: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows: Tensor | None = None
        if self.post_process:
            self.lm_head.register_forward_pre_hook(self._choose, with_kwargs=True)

    def forward(self, *args: Any, labelled: Labelled | None = None, **kwargs: Any) -> Any:
        """As BertModel's; with `labelled` the losses are [1, n], one for each of its labels."""
        if labelled is None:
            return super().forward(*args, **kwargs)
        self._rows = labelled.rows
        try:
            return super().forward(*args, **kwargs, lm_labels=labelled.labels)
        finally:
            self._rows = None

    def _choose(self, _head: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._rows is None:
            return None
        hidden = kwargs["hidden_states"]
        chosen = hidden.reshape(-1, hidden.size(-1)).index_select(0, self._rows).unsqueeze(1)
        return args, {**kwargs, "hidden_states": chosen}


def sequence_part(sequence_parallel: bool) -> tuple[int, int]:
    """Into how many parts the head's ranks cut the sequence, and which is this one's."""
    if not sequence_parallel:
        return 1, 0
    return parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
