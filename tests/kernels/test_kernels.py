"""Each operation beside the same in torch's own in float64, with the same mask where there is dropout."""

import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dslm_patches.kernels import attention, cross_entropy, dropout, dropout_attention, linear, residual_add
from dslm_patches.kernels.dropout import DropoutMask

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
DTYPES = list(TOLERANCE)


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of a weighted sum of the output."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape).to(output.dtype)
    return list(torch.autograd.grad((output * weights).sum(), inputs))


def check_close(ours: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> None:
    """Every tensor within the tolerance of the dtype, beside the largest element."""
    for one, other in zip(ours, exact, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other.double()).abs().max() <= TOLERANCE[dtype] * other.double().abs().max()


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Random tensors, and the same in float64."""
    generator = torch.Generator().manual_seed(3)
    ours = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return ours, [one.detach().double().requires_grad_() for one in ours]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(dtype: torch.dtype, bias: bool) -> None:
    ours, exact = leaves((5, 3, 16), (24, 16), *([(24,)] if bias else []), dtype=dtype)
    output, expected = linear(*ours), F.linear(*exact)
    check_close([output, *gradients(output, ours)], [expected, *gradients(expected, exact)], dtype)
    output.add_(1)  # megatron-core's cross entropy works in place


def test_linear_without_one_dnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for dtype in (*DTYPES, torch.float64):
        ours, exact = leaves((5, 3, 16), (24, 16), (24,), dtype=dtype)
        output, expected = linear(*ours), F.linear(*exact)
        tolerance = dtype if dtype in TOLERANCE else torch.float32
        check_close([output, *gradients(output, ours)], [expected, *gradients(expected, exact)], tolerance)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, masked: Tensor | None, kept: Tensor, scale: float) -> Tensor:
    """As megatron-core's DotProductAttention computes it, [s, b, heads, hn] each."""
    logits = torch.einsum("sbhd,tbhd->bhst", q, k) * scale
    if masked is not None:
        logits = logits.masked_fill(masked.unsqueeze(1), -10000.0)
    weights = logits.softmax(-1) * kept
    return torch.einsum("bhst,tbhd->sbhd", weights, v).flatten(2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["unmasked", "padded", "causal", "cross"])
@pytest.mark.parametrize("block_bytes", [1, 1500, 6000, 1 << 20])
def test_attention(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, p: float, kind: str, block_bytes: int) -> None:
    monkeypatch.setattr(attention, "_BLOCK_BYTES", block_bytes)
    s, b, heads, hn = 12, 3, 4, 8
    sk = 7 if kind == "cross" else s
    ours, exact = leaves((s, b, heads, hn), (sk, b, heads, hn), (sk, b, heads, hn), dtype=dtype)
    masked = None
    if kind == "padded":
        lengths = torch.tensor([12, 5, 9])
        seen = torch.arange(s) < lengths.unsqueeze(1)
        masked = ~(seen.unsqueeze(1) & seen.unsqueeze(2))  # rows of padding see nothing
    elif kind == "causal":
        masked = torch.ones(1, s, s, dtype=torch.bool).triu(1)
    numbers = (None, None) if masked is None else ((~masked).to(dtype), masked.to(dtype) * -10000.0)
    torch.manual_seed(5)
    output = dropout_attention(*ours, *numbers, p, 0.4)
    kept = torch.ones(b, heads, s, sk, dtype=torch.float64)
    if p:
        torch.manual_seed(5)
        mask = DropoutMask(kept.numel(), p)
        kept = mask.write(kept) * mask.scale
    expected = masked_attention(*exact, masked, kept, 0.4)
    check_close([output, *gradients(output, ours)], [expected, *gradients(expected, exact)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("skip", "branch"), [(1.0, 1.0), (0.9, 0.4)])
@pytest.mark.parametrize("bias", [True, False])
def test_residual_add(dtype: torch.dtype, p: float, skip: float, branch: float, bias: bool) -> None:
    shape = (6, 3, 16)
    ours, exact = leaves(shape, shape, *([(16,)] if bias else []), dtype=dtype)
    torch.manual_seed(5)
    output = residual_add(ours[0], ours[2] if bias else None, ours[1], p, skip, branch)
    torch.manual_seed(5)
    mask = DropoutMask(output.numel(), p)
    kept = mask.write(torch.empty(shape, dtype=torch.float64)) * mask.scale
    expected = skip * exact[1] + branch * kept * (exact[0] + (exact[2] if bias else 0))
    check_close([output, *gradients(output, ours)], [expected, *gradients(expected, exact)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    module = import_module("dslm_patches.kernels.cross_entropy")
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 50 * 3)  # three rows at a time
    (logits,), (exact,) = leaves((5, 4, 50), dtype=dtype)
    target = torch.randint(50, (5, 4), generator=torch.Generator().manual_seed(1))
    losses = cross_entropy(logits * 1.0, target)
    expected = F.cross_entropy(exact.flatten(0, 1), target.flatten(), reduction="none").view(5, 4)
    assert losses.dtype == torch.float32
    check_close([losses], [expected], torch.float32)
    check_close(gradients(losses, [logits]), gradients(expected, [exact]), dtype)


def test_cross_entropy_without_a_target() -> None:
    logits = torch.randn(3, 10, requires_grad=True)
    losses = cross_entropy(logits * 1.0, torch.tensor([2, -1, 9]))
    assert torch.allclose(losses[1], logits[1].logsumexp(0)), "finite: it is masked, and 0 x inf would not be 0"
    (losses * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    assert logits.grad is not None
    assert not logits.grad[1:].any()


def test_cross_entropy_refuses_a_second_backward_pass() -> None:
    logits = torch.randn(4, 10, requires_grad=True)
    losses = cross_entropy(logits * 1.0, torch.arange(4)).sum()
    losses.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        losses.backward()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(dtype: torch.dtype) -> None:
    x = torch.full((1000, 400), 2.0, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    output = dropout(x, 0.25)
    (gradient,) = torch.autograd.grad(output.sum(), [x])
    assert set(output.unique().tolist()) == {0.0, torch.tensor(2 / 0.75).to(dtype).item()}
    assert torch.equal(gradient * 2, output), "the same elements, backward"
    kept = (output != 0).double()
    assert kept.mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.25 * 0.75 / x.numel()))
    assert kept.mean(0).std().item() == pytest.approx(math.sqrt(0.25 * 0.75 / 1000), rel=0.15), "columns like coins"
    assert (kept[:, 1:] * kept[:, :-1]).mean().item() == pytest.approx(0.75**2, abs=0.003), "neighbours independent"
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.25), output), "the same of the same state"
    assert not torch.equal(dropout(x, 0.25), output), "and another of the next"
    assert dropout(x, 0.0) is x


def test_masks_do_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    masks = []
    try:
        for number in (1, 4):  # from four on, in threads
            torch.set_num_threads(number)
            torch.manual_seed(9)
            masks.append(DropoutMask(1_000_001, 0.1).write(torch.empty(1_000_001)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*masks)
    assert masks[0].mean().item() == pytest.approx(0.9, abs=0.0015)


@pytest.mark.parametrize("p", [1.0, -0.1, 0.999999])
def test_impossible_probabilities(p: float) -> None:
    with pytest.raises(ValueError, match="dropout"):
        DropoutMask(4, p)
