"""Cross entropy over a vocabulary, a few rows at a time: the logits are read once forward and once backward."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_BLOCK_BYTES = 2 << 20
"""Of the rows in hand in fp32."""


def cross_entropy(logits: Tensor, target: Tensor, group: Any = None) -> Tensor:
    """-log softmax(logits)[target] in fp32, of the target's shape. The backward pass, once, writes over the logits.

    Args:
        logits: [..., v], this rank's part of the vocabulary if there is a group.
        target: [...], ids of the whole vocabulary.
        group: tensor-parallel ranks, each with v consecutive ids, in their order.
    """
    # Contiguous, as elements that share memory (an expanded tensor's) cannot be written over.
    rows = logits.reshape(-1, logits.size(-1)).contiguous()
    return _CrossEntropy.apply(rows, target.reshape(-1), group).view(target.shape)


def _blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows, each with an fp32 copy of it that is overwritten by the next."""
    step = max(1, _BLOCK_BYTES // (4 * rows.size(1)))
    copies = torch.empty(min(step, rows.size(0)), rows.size(1))
    for start in range(0, rows.size(0), step):
        block = slice(start, min(start + step, rows.size(0)))
        yield block, copies[: block.stop - start].copy_(rows[block])


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, group: Any) -> Tensor:
        ctx.save_for_backward(rows)
        alone = group is None or dist.get_world_size(group) == 1
        size = rows.size(1)
        target = target.unsqueeze(1) - (0 if alone else size * dist.get_rank(group))
        ctx.local = local = target.clamp(0, size - 1)
        here = local == target
        ctx.here, ctx.share = here.float(), 1.0
        if alone:
            log_shares = torch.empty(rows.size(0), 1)
            for block, logits in _blocks(rows):
                torch.gather(torch.log_softmax(logits, 1, out=logits), 1, local[block], out=log_shares[block])
            # where a target is no id (an unlabelled position's -1), a finite number that the loss mask takes out
            return torch.where(here, 0.0, rows.gather(1, local).float()).sub_(log_shares).squeeze(1)
        own_sums = torch.empty(rows.size(0), 1)
        for block, logits in _blocks(rows):
            torch.logsumexp(logits, 1, keepdim=True, out=own_sums[block])
        most = own_sums.clone()
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=group)
        both = torch.stack([(own_sums - most).exp(), rows.gather(1, local).float() * ctx.here])
        dist.all_reduce(both, group=group)
        log_sums = most + both[0].log()
        ctx.share = (own_sums - log_sums).exp()
        return (log_sums - both[1]).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(1)
        scale, at_target = gradient * ctx.share, gradient * -ctx.here
        with torch.no_grad():
            for block, logits in _blocks(rows):
                of_logits = torch.softmax(logits, 1, out=logits).mul_(scale[block])
                rows[block] = of_logits.scatter_add_(1, ctx.local[block], at_target[block])
        return rows, None, None
