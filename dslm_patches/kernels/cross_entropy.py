"""Cross entropy over a vocabulary, a few rows at a time: the logits are read once forward and once backward."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_BLOCK_BYTES = 2 << 20
"""Of the fp32 copy of the rows in hand."""


def cross_entropy(logits: Tensor, target: Tensor, group: Any = None) -> Tensor:
    """-log softmax(logits)[target] in fp32, of the target's shape. The backward pass, once, writes over the logits.

    Args:
        logits: [..., v], this rank's part of the vocabulary if there is a group.
        target: [...], ids of the whole vocabulary.
        group: tensor-parallel ranks, each with v consecutive ids, in their order.
    """
    rows = logits.reshape(-1, logits.size(-1))
    return _CrossEntropy.apply(rows, target.reshape(-1), group).view(target.shape)


def _blocks(rows: Tensor) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (4 * rows.size(1)))
    return (slice(start, start + step) for start in range(0, rows.size(0), step))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, group: Any) -> Tensor:
        size = rows.size(1)
        local = target - (size * dist.get_rank(group) if group is not None else 0)
        here = ((local >= 0) & (local < size)).unsqueeze(1)
        local = local.unsqueeze(1).clamp(0, size - 1)
        log_sums = torch.cat([torch.logsumexp(rows[block].float(), 1) for block in _blocks(rows)])
        predicted = (rows.gather(1, local).float() * here).squeeze(1)
        if group is not None and dist.get_world_size(group) > 1:
            most = log_sums.clone()
            dist.all_reduce(most, op=dist.ReduceOp.MAX, group=group)
            sums = torch.stack([(log_sums - most).exp(), predicted])
            dist.all_reduce(sums, group=group)
            log_sums, predicted = most + sums[0].log(), sums[1]
        ctx.save_for_backward(rows, local, here, log_sums)
        return log_sums - predicted

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, local, here, log_sums = ctx.saved_tensors
        gradient, log_sums = gradients[0].unsqueeze(1), log_sums.unsqueeze(1)
        with torch.no_grad():
            for block in _blocks(rows):
                part = torch.sub(rows[block], log_sums[block]).exp_()
                part.scatter_add_(1, local[block], -here[block].to(part.dtype))
                torch.mul(part, gradient[block], out=rows[block])
        return rows, None, None
