"""Where attention's closed form is within 3 % of the variance, and where it warns."""

import math
import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from dslm_patches.theory.attention import Attention
from dslm_patches.theory.moments import Moments, OutsideTheoryWarning
from tests.marks import slow_but

TOLERANCE = 0.03
WORK = 1.6e8
"""Numbers of all draws of a point: decides how many they are."""


@dataclass(frozen=True)
class Point:
    """One head: its sizes, correlations of tokens and of gradients, std of queries and keys times sqrt(d), dropout."""

    hidden_size: int
    head_size: int
    length: int
    r: float
    rg: float
    std: float
    p: float
    causal: bool = False

    @property
    def head(self) -> Attention:
        d = self.hidden_size
        variance = self.std**2 / d
        return Attention(d, self.head_size, 1, variance, variance, 1.0 / d, self.length, self.causal, self.p)

    @property
    def predicted(self) -> Tensor:
        """Variance and covariance of the output, then of the gradient at the input."""
        x = Moments.correlated(1.0, self.r)
        out, back = self.head.forward(x), self.head.backward(x, Moments.correlated(1.0, self.rg))
        return torch.tensor([one for m in (out, back) for one in (m.mean_variance, m.mean_covariance)])


def tokens(count: int, length: int, features: int, r: float, draw: torch.Generator) -> Tensor:
    """Tokens of variance 1 and correlation r, as negative as so many can have it, [count, length, features]."""
    own = torch.randn(count, length, features, generator=draw)
    shared = torch.randn(count, 1, features, generator=draw) * math.sqrt(max(0.0, r + (1.0 - r) / length))
    return shared + math.sqrt(1.0 - r) * (own - own.mean(1, keepdim=True))


def moments(y: Tensor) -> Tensor:
    """Mean square and mean product of different tokens of each draw, [count, 2]."""
    y = y.detach().double()
    square = y.square().sum((1, 2))
    pairs = (y.sum(1).square().sum(1) - square) / (y.shape[1] - 1)
    return torch.stack([square, pairs], 1) / (y.shape[1] * y.shape[2])


def simulated(point: Point, count: int, draw: torch.Generator) -> Tensor:
    """The four moments of each draw of weights, tokens, dropout and gradient, [count, 4]."""
    d, head, length = point.hidden_size, point.head_size, point.length
    x = tokens(count, length, d, point.r, draw).requires_grad_()
    g = tokens(count, length, head, point.rg, draw)
    query, key, value = (x @ torch.randn(count, d, head, generator=draw) / math.sqrt(d) for _ in range(3))
    logits = point.std**2 * query @ key.transpose(1, 2) / math.sqrt(head)
    if point.causal:
        logits = logits.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -math.inf)
    weights = logits.softmax(-1)
    kept = torch.rand(weights.shape, generator=draw) >= point.p
    y = (weights * kept / (1.0 - point.p)) @ value
    return torch.cat([moments(y), moments(torch.autograd.grad(y, x, g)[0])], 1)


# Few tokens, narrow heads, much dropout, tokens alike and opposed, large logits: near the ends of what does not warn.
INSIDE = [
    Point(129, 16, 5, r=0.0, rg=0.92, std=1.0, p=0.37),
    Point(97, 40, 128, r=0.0, rg=0.0, std=1.13, p=0.75),
    Point(97, 40, 128, r=0.4, rg=0.5, std=1.13, p=0.75),
    Point(64, 64, 8, r=0.0, rg=0.5, std=1.3, p=0.0),
    Point(64, 64, 2, r=0.2, rg=0.5, std=1.3, p=0.5),
    Point(83, 47, 13, r=0.3, rg=0.47, std=1.49, p=0.5),
    Point(64, 32, 64, r=0.5, rg=0.9, std=1.5, p=0.0),
    Point(64, 16, 32, r=0.0, rg=0.0, std=1.0, p=0.5),
    Point(56, 33, 59, r=0.93, rg=0.0, std=1.35, p=0.9),
    Point(33, 33, 78, r=0.0, rg=0.44, std=1.34, p=0.0),
    Point(100, 32, 16, r=-1 / 15, rg=-1 / 15, std=0.6, p=0.1),
    Point(128, 32, 64, r=0.2, rg=0.5, std=1.265, p=0.1, causal=True),
    Point(128, 32, 64, r=0.5, rg=0.5, std=1.265, p=0.0, causal=True),
    Point(64, 32, 12, r=0.0, rg=0.9, std=1.0, p=0.5, causal=True),
]


@pytest.mark.parametrize("point", slow_but([INSIDE[0], INSIDE[1], INSIDE[6], INSIDE[11]], INSIDE), ids=str)
def test_the_closed_form_holds_where_it_does_not_warn(point: Point) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutsideTheoryWarning)
        predicted = point.predicted
    d, head, length = point.hidden_size, point.head_size, point.length
    count = int(WORK / (3 * head * d + 3 * length * d + 4 * length**2))
    draw = torch.Generator().manual_seed(11)
    draws = torch.cat([simulated(point, count // 20, draw) for _ in range(20)])
    error = draws.std(0) / math.sqrt(len(draws))
    variance = predicted[[0, 0, 2, 2]]
    assert (error < 0.012 * variance).all(), f"too few draws: {error / variance}"
    gap = draws.mean(0) - predicted
    assert (gap.abs() < TOLERANCE * variance + 3.0 * error).all(), f"{gap / variance} +- {error / variance}"


@pytest.mark.parametrize(
    ("hidden", "head", "std", "message"),
    [(128, 8, 1.0, "heads of 8"), (64, 64, 1.5, "across the keys"), (18, 16, 1.38, "up to 2.88")],
)
def test_beyond_it_warns(hidden: int, head: int, std: float, message: str) -> None:
    inside = Point(64, 16, 64, r=0.0, rg=0.0, std=1.38, p=0.0)
    with pytest.warns(OutsideTheoryWarning, match=message):
        _ = replace(inside, hidden_size=hidden, head_size=head, std=std).predicted
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutsideTheoryWarning)
        _ = inside.predicted


def test_opposed_tokens_have_opposed_outputs() -> None:
    """Two tokens x and -x: what one attends to is minus what the other does."""
    two = Moments.correlated(1.0, -1.0)
    head = Attention(512, 512, 1, 1.0 / 512, 1.0 / 512, 1.0 / 512, 2)
    out, back = head.forward(two), head.backward(two, two)
    assert out.covariance == pytest.approx(-out.variance, rel=5e-3)
    assert back.covariance == pytest.approx(-back.variance, rel=5e-3)
