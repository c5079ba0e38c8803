"""Dropout masks on CPU: torch draws each element from one serial generator, which costs more than a matrix product."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LEVELS = 1 << 16
"""A mask's element is decided by 16 random bits."""


class DropoutMask:
    """Which elements dropout keeps, as 16 random bits for each of them: half an fp32 mask's memory for a pass more.

    The bits come from NumPy's SFC64, seeded by torch's default generator, so that whoever restores that generator's
    state (recomputation, a resumed run, tensor-parallel ranks) gets the same mask.

    Args:
        count: elements.
        p: probability of dropping one, to the nearest 1/65536.

    Attributes:
        scale: what kept elements are multiplied by, so that expectations stay as they are.

    Raises:
        ValueError: a probability of which nothing would be kept.
    """

    def __init__(self, count: int, p: float) -> None:
        dropped = round(p * _LEVELS)
        if not 0 <= dropped < _LEVELS:
            raise ValueError(f"dropout must be at least 0 and less than 1, not {p}")
        self.scale = _LEVELS / (_LEVELS - dropped)
        self._least = dropped - _LEVELS // 2
        seed = int(torch.randint(2**63 - 1, ()))
        self._bits = torch.from_numpy(_words(seed, -(-count // 4)).view(np.int16))[:count]

    def write(self, out: Tensor, start: int = 0) -> Tensor:
        """Fills a contiguous tensor with the mask from element `start` on, 1 where it keeps; returns the tensor."""
        flat = out.view(-1)
        # Into numbers: operations with booleans are not vectorised and cost five times as much.
        torch.ge(self._bits[start : start + flat.numel()], self._least, out=flat)
        return out


_WORDS = 1 << 16
"""Words of a part, each part with a generator of its own, so that threads can draw them."""
_threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dropout")


def _words(seed: int, count: int) -> np.ndarray:
    """Random 64-bit words, the same whatever the number of threads."""
    if count <= _WORDS:
        return np.random.SFC64(seed).random_raw(count)
    words = np.empty(count, np.uint64)

    def draw(part: int) -> None:
        chosen = words[part * _WORDS : (part + 1) * _WORDS]
        chosen[:] = np.random.SFC64((seed, part)).random_raw(chosen.size)

    parts = range(-(-count // _WORDS))
    # Beside two or three threads of torch, which wait for work without sleeping, handing out the parts costs more.
    list((map if torch.get_num_threads() < 4 else _threads.map)(draw, parts))
    return words


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.mask = DropoutMask(x.numel(), p)
        return ctx.mask.write(torch.empty(x.shape, dtype=x.dtype)).mul_(x).mul_(ctx.mask.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        kept = ctx.mask.write(torch.empty(gradient.shape, dtype=gradient.dtype))
        return kept.mul_(gradient).mul_(ctx.mask.scale), None


def dropout(x: Tensor, p: float) -> Tensor:
    """The input with elements dropped and the rest scaled; the input itself where p is 0."""
    return _Dropout.apply(x, p) if p > 0 else x


class Dropout(torch.nn.Module):
    """torch.nn.Dropout by `DropoutMask`.

    Args:
        p: probability of dropping an element.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`dropout` in training; the input itself in evaluation."""
        return dropout(x, self.p if self.training else 0.0)
