"""Attention with dropout on CPU, in blocks that stay in the cache from the logits to the averaged values."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dslm_patches.kernels.dropout import DropoutMask

_BLOCK_BYTES = 2 << 20
"""Attention weights of a block: with its scratch space it fits a core's share of the last cache."""


def dropout_attention(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, fill: Tensor | None, p: float, scale: float
) -> Tensor:
    """dropout(softmax(masked(scale query key^T))) value, as [s, b, heads * hn].

    torch's scaled_dot_product_attention has no dropout in its CPU kernel: with dropout it falls back to whole matrices
    and one random number at a time.

    Args:
        query: [s, b, heads, hn].
        key, value: [sk, b, heads, hn].
        keep, fill: [b or 1, s, sk], of the query's dtype: 1 and 0 where a key is seen, 0 and a large negative number
            where it is not. Both or neither.
        p: probability of dropping an attention weight.
        scale: of the logits.
    """
    return _DropoutAttention.apply(query, key, value, keep, fill, p, scale)


def _rows(x: Tensor) -> Tensor:
    """[s, b, heads, hn] as [b * heads, s, hn]; made contiguous by who transposes it, for oneDNN's sake."""
    return x.flatten(1, 2).transpose(0, 1)


def _blocks(weights: Tensor, heads: int) -> Iterator[tuple[int, int]]:
    """Ranges of b * heads, the first dimension, that hold whole samples, or a part of one."""
    rows, each = weights.size(0), weights.size(1) * weights.size(2)
    if not rows:
        return
    step = max(1, _BLOCK_BYTES // max(1, each * weights.element_size()))
    step = step // heads * heads if step >= heads else max(n for n in range(1, step + 1) if heads % n == 0)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _by_sample(block: Tensor, mask: Tensor, start: int, heads: int, change: Callable[..., Tensor]) -> None:
    """Changes a block in place by a mask of its samples, for all heads alike."""
    first, samples = start // heads, max(1, block.size(0) // heads)
    part = mask if mask.size(0) == 1 else mask[first : first + samples]
    change(block.unflatten(0, (samples, -1)), part.unsqueeze(1))


class _DropoutAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keep: Tensor | None,
        fill: Tensor | None,
        p: float,
        scale: float,
    ) -> Tensor:
        s, b, heads, hn = query.shape
        q, k, v = _rows(query), _rows(key).contiguous(), _rows(value)
        weights = query.new_empty(b * heads, s, key.size(0))
        context = query.new_empty(s, b, heads * hn)
        out = context.view(s, b * heads, hn).transpose(0, 1)
        each = s * key.size(0)
        mask = DropoutMask(weights.numel(), p) if p > 0 else None
        scratch: Tensor | None = None
        for start, end in _blocks(weights, heads):
            block = weights[start:end]
            _product(block, q[start:end], k[start:end].transpose(1, 2), scale)
            if keep is not None and fill is not None:  # as megatron-core does: a row without any key stays finite
                _by_sample(block, keep, start, heads, Tensor.mul_)
                _by_sample(block, fill, start, heads, Tensor.add_)
            torch.softmax(block, -1, out=block)
            if mask is None:
                _product(out[start:end], block, v[start:end], 1.0)
                continue
            scratch = torch.empty_like(block) if scratch is None else scratch[: end - start]
            _product(out[start:end], mask.write(scratch, start * each).mul_(block), v[start:end], mask.scale)
        ctx.save_for_backward(query, key, value, weights)
        ctx.mask, ctx.keep, ctx.scale = mask, keep, scale
        return context

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        query, key, value, weights = ctx.saved_tensors
        s, b, heads, hn = query.shape
        gradient = gradients[0].reshape(s, b * heads, hn).transpose(0, 1)
        q, k, v = _rows(query), _rows(key), _rows(value).contiguous()
        of_query, of_key, of_value = (one.new_empty(one.shape) for one in (query, key, value))
        oq, ok, ov = _rows(of_query), _rows(of_key), _rows(of_value)
        scratch: tuple[Tensor, Tensor] | None = None
        for start, end in _blocks(weights, heads):
            rows = slice(start, end)
            block = weights[rows]
            scratch = scratch or (torch.empty_like(block), torch.empty_like(block))
            kept, work = (one[: end - start] for one in scratch)
            dropped, scale = block, 1.0
            if ctx.mask is not None:
                ctx.mask.write(kept, start * block[0].numel())
                dropped, scale = torch.mul(kept, block, out=work), ctx.mask.scale
            _product(ov[rows], dropped.transpose(1, 2), gradient[rows], scale)
            _product(work, gradient[rows], v[rows].transpose(1, 2), scale)
            if ctx.mask is not None:
                work.mul_(kept)
            of_logits = torch._softmax_backward_data(work, block, -1, block.dtype)
            if ctx.keep is not None:  # what was filled in has no gradient, where a row is all filled
                _by_sample(of_logits, ctx.keep, start, heads, Tensor.mul_)
            _product(oq[rows], of_logits, k[rows], ctx.scale)
            _product(ok[rows], of_logits.transpose(1, 2), q[rows], ctx.scale)
        return of_query, of_key, of_value, None, None, None, None


def _product(out: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
    """out = scale a b, of batches of matrices."""
    if out.is_contiguous():
        torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)
    else:
        # MKL would take the matrices of a strided batch one by one, at half the speed.
        out.copy_(torch.baddbmm(out, a, b, beta=0, alpha=scale))
