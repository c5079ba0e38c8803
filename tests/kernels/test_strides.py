"""Operations on tensors as they may come: strided, expanded, empty."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dslm_patches.kernels import cross_entropy, dropout, dropout_attention, linear, residual_add
from tests.distributed.pool import RankPool

Operation = Callable[..., Tensor]
TARGET = torch.arange(12).view(4, 3).t() % 10
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "sliced": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "first": lambda x: x.repeat_interleave(2, 0)[::2],
    "rows alike": lambda x: x[:1].expand(x.shape),
    "all alike": lambda x: x.flatten()[0].expand(x.shape),
}
"""Each layout of the elements of a tensor, or of some of them."""


def operations(p: float) -> dict[str, tuple[Operation, list[tuple[int, ...]]]]:
    """Each operation and the shapes of its inputs."""
    return {
        "linear": (linear, [(3, 4, 16), (24, 16), (24,)]),
        "attention": (lambda q, k, v: dropout_attention(q, k, v, None, None, p, 0.4), [(3, 4, 2, 8)] * 3),
        "residual": (lambda x, bias, skip: residual_add(x, bias, skip, p), [(3, 4, 16), (16,), (3, 4, 16)]),
        "scaled residual": (
            lambda x, bias, skip: residual_add(x, bias, skip, p, 0.9, 0.4),
            [(3, 4, 16), (16,), (3, 4, 16)],
        ),
        "dropout": (lambda x: dropout(x, p), [(3, 4, 16)]),
        "cross entropy": (lambda x: cross_entropy(x, TARGET), [(3, 4, 10)]),
        "cross entropy of rows": (lambda x: cross_entropy(x, TARGET[0]), [(4, 10)]),
    }


def outcome(operation: Operation, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Output and gradients, of the same random state."""
    torch.manual_seed(5)
    inputs = [one.detach().requires_grad_() for one in inputs]
    output = operation(*inputs)
    return [output.detach().clone(), *torch.autograd.grad(output, inputs, gradient)]


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", operations(0.0))
def test_strides_change_nothing(name: str, layout: str, p: float) -> None:
    """One tensor after the other, the gradient the last, against the same elements one after the other in memory."""
    operation, shapes = operations(p)[name]
    generator = torch.Generator().manual_seed(1)
    plain = [torch.randn(shape, generator=generator) for shape in shapes]
    plain.append(torch.randn(operation(*plain).shape, generator=generator))
    for index in range(len(plain)):
        strided = LAYOUTS[layout](plain[index])
        tensors, copies = list(plain), [one.clone() for one in plain]
        tensors[index], copies[index] = strided, strided.contiguous()
        ours = outcome(operation, tensors[:-1], tensors[-1])
        expected = outcome(operation, copies[:-1], copies[-1])
        for one, other in zip(ours, expected, strict=True):
            assert (one - other).abs().max() <= 2e-6 * max(1.0, other.abs().max().item()), (index, one.shape)


@pytest.mark.parametrize(
    ("operation", "shapes"),
    [
        (linear, [(0, 16), (24, 16), (24,)]),
        (linear, [(5, 0, 16), (24, 16)]),
        (linear, [(5, 16), (0, 16)]),
        (lambda x: dropout(x, 0.3), [(0, 16)]),
        (lambda x: cross_entropy(x, torch.zeros(0, 4, dtype=torch.long)), [(0, 4, 10)]),
    ],
)
def test_nothing_in_nothing_out(operation: Operation, shapes: list[tuple[int, ...]]) -> None:
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    output = operation(*inputs)
    assert output.numel() == 0
    for one, gradient in zip(inputs, torch.autograd.grad(output.sum(), inputs), strict=True):
        assert gradient.shape == one.shape
        assert not gradient.any()


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("s", "sk", "b"), [(0, 5, 2), (5, 0, 2), (5, 5, 0)])
def test_attention_without_queries_keys_or_samples(s: int, sk: int, b: int, masked: bool, p: float) -> None:
    query, key, value = (torch.randn(n, b, 4, 8, requires_grad=True) for n in (s, sk, sk))
    mask = torch.ones(1, s, sk) if masked else None
    output = dropout_attention(query, key, value, mask, mask, p, 0.4)
    assert output.shape == (s, b, 32)
    assert not output.any(), "a sum over no keys"
    for gradient in torch.autograd.grad(output.sum(), [query, key, value]):
        assert not gradient.any()


@pytest.mark.parametrize("rows", [0, 15])
def test_cross_entropy_over_ranks(ranks: RankPool, rows: int) -> None:
    assert max(ranks.run(2, "tests.kernels.kernel_workers:sharded_cross_entropy", rows=rows)) < 1e-5
