"""Components, attention and stacks against Monte Carlo, against each other and at their limits."""

import math

import numpy as np
import pytest
import torch

from dslm_patches.theory import closed_forms
from dslm_patches.theory.activations import ACTIVATIONS, SLOPES, product_moment, quadrature, slope_product_moment
from dslm_patches.theory.attention import Attention
from dslm_patches.theory.components import Activation, Chain, Dropout, GatedActivation, LayerNorm, Linear, Residual
from dslm_patches.theory.embeddings import pair_scatter
from dslm_patches.theory.moments import Moments, OutsideTheoryWarning, check_correlation
from dslm_patches.theory.softmax import Softmax, weight_sums
from dslm_patches.theory.stack import LayerWeights, layer_components, stack_profile
from tests.marks import slow_but
from tests.theory.shapes import model_shape


def measured(y: torch.Tensor) -> tuple[float, float]:
    """Mean square and mean product of different tokens of y [..., L, features]."""
    y = y.detach().double()
    length = y.shape[-2]
    square = y.square().sum()
    pairs = (y.sum(-2).square().sum() - square) / (length - 1)
    return square.item() / y.numel(), pairs.item() / y.numel()


def tokens(r: float, length: int, features: int) -> torch.Tensor:
    """Tokens of variance 1 and correlation r."""
    return math.sqrt(r) * torch.randn(1, features) + math.sqrt(1 - r) * torch.randn(length, features)


@pytest.mark.parametrize("name", ["gelu"])
@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_closed_forms_equal_quadrature(name: str, variance: float) -> None:
    nodes, weights = quadrature()
    for r in (-0.4, 0.3, 0.9):
        other = r * nodes[:, None] + math.sqrt(1 - r**2) * nodes[None, :]
        for table, functions in ((closed_forms.PRODUCTS, ACTIVATIONS), (closed_forms.SLOPE_PRODUCTS, SLOPES)):
            phi, std = functions[name], math.sqrt(variance)
            integral = weights @ (phi(std * nodes)[:, None] * phi(std * other)) @ weights
            assert float(table[name](variance, np.array(r))) == pytest.approx(integral, rel=1e-4)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_slope_of_the_covariance_map_is_the_product_of_slopes(name: str) -> None:
    """Price's theorem, by a difference quotient: ties forward and backward formulas together."""
    s, r, step = 1.3, 0.4, 1e-4
    quotient = (product_moment(name, s, r + step) - product_moment(name, s, r - step)) / (2 * step * s)
    assert quotient == pytest.approx(slope_product_moment(name, s, r), rel=1e-4)


def test_many_correlations_are_interpolated_as_one_by_one() -> None:
    r = np.linspace(-0.2, 0.95, 200)
    single = [product_moment("silu", 0.8, float(x)) for x in r[::37]]
    assert product_moment("silu", 0.8, r)[::37] == pytest.approx(single, rel=1e-6)


@pytest.mark.parametrize(("keys", "variance"), [(2, 1.0), (5, 2.5), (128, 0.3), (128, 2.5)])
def test_weight_sums_against_simulation(keys: int, variance: float) -> None:
    logits = math.sqrt(variance) * np.random.default_rng(0).standard_normal((4_000_000 // keys, keys))
    a = np.exp(logits)
    a /= a.sum(1, keepdims=True)
    squares, cubes = (a**2).sum(1), (a**3).sum(1)
    sums = weight_sums(float(keys), variance)
    for sample, expected in ((squares, sums.squares), (squares - 2 * cubes + squares**2, sums.spread)):
        error = sample.std(ddof=1) / math.sqrt(len(sample))
        assert abs(sample.mean() - expected) < 4 * error
        assert abs(sample.mean() - 1.05 * expected) > 4 * error, "a factor of 1.05 must be seen"


def test_weight_sums_at_their_limits() -> None:
    assert weight_sums(1.0, 2.0).squares == pytest.approx(1.0)
    assert weight_sums(64.0, 0.0).squares == pytest.approx(1 / 64)
    assert weight_sums(1e7, 0.5).squares == pytest.approx(math.exp(0.5) / 1e7, rel=1e-4)
    many = weight_sums(np.arange(1.0, 65.0), np.full(64, 0.77))
    assert many.squares[-1] == pytest.approx(weight_sums(64.0, 0.77).squares, rel=5e-3)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_a_gated_ffn_against_simulation(name: str) -> None:
    d, f, r, rg = 128, 256, 0.3, 0.4
    torch.manual_seed(0)
    phi = {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}[name]
    forward, backward = [], []
    for _ in range(60):
        x, g = tokens(r, 16, d).requires_grad_(), tokens(rg, 16, d)
        up, gate, down = torch.randn(f, d) / math.sqrt(d), torch.randn(f, d) / math.sqrt(d), torch.randn(d, f)
        y = (x @ up.T * phi(x @ gate.T)) @ down.T / math.sqrt(f)
        forward.append(measured(y))
        backward.append(measured(torch.autograd.grad(y, x, g)[0]))
    chain = Chain([Linear(d, f, 1 / d), GatedActivation(name), Linear(f, d, 1 / f)])
    x_in, g_in = Moments.correlated(1.0, r), Moments.correlated(1.0, rg)
    for simulated, moments in ((forward, chain.forward(x_in)), (backward, chain.backward(x_in, g_in))):
        mean, error = np.mean(simulated, axis=0), np.std(simulated, axis=0, ddof=1) / math.sqrt(60)
        assert abs(mean[0] - moments.mean_variance) < 4 * error[0] + 0.01 * mean[0]
        assert abs(mean[1] - moments.mean_covariance) < 4 * error[1] + 0.01 * mean[0]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("r", "rg"), [(0.02, 0.0), (0.3, 0.0), (0.3, 0.5)])
def test_multi_head_attention_against_simulation(causal: bool, r: float, rg: float) -> None:
    """Where DeepScaleLM uses it, queries and keys of variance 1/d, with dropout; within 5 % and the noise."""
    d, head, heads, length, p = 256, 64, 4, 96, 0.1
    torch.manual_seed(1)
    forward, backward = [], []
    for _ in range(40):
        x = tokens(r, length, d).requires_grad_()
        query, key, value = (torch.einsum("hkd,ld->hlk", torch.randn(heads, head, d) / 16, x) for _ in range(3))
        logits = query @ key.transpose(1, 2) / math.sqrt(head)
        if causal:
            logits = logits.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        y = torch.nn.functional.dropout(logits.softmax(-1), p) @ value
        g = math.sqrt(rg) * torch.randn(heads, 1, head) + math.sqrt(1 - rg) * torch.randn(heads, length, head)
        forward.append(measured(y))
        backward.append(measured(torch.autograd.grad(y, x, g)[0]))
    attention = Attention(d, head * heads, heads, 1 / d, 1 / d, 1 / d, length, causal, p)
    x_in, g_in = Moments.correlated(1.0, r), Moments.correlated(1.0, rg)
    for simulated, moments in ((forward, attention.forward(x_in)), (backward, attention.backward(x_in, g_in))):
        mean, error = np.mean(simulated, axis=0), np.std(simulated, axis=0, ddof=1) / math.sqrt(40)
        assert abs(mean[0] - moments.mean_variance) < 3 * error[0] + 0.05 * mean[0]
        assert abs(mean[1] - moments.mean_covariance) < 3 * error[1] + 0.05 * mean[0]
    if rg == 0.0:
        published = 1.0 / (length * (1 - p))
        assert np.mean(backward, axis=0)[0] > 1.5 * published, "the value path with uniform weights is far off here"


def test_residual_and_chain_add_up() -> None:
    branch = Chain([Linear(8, 8, 0.5), Dropout(0.2)])
    block = Residual(branch, 0.6, 0.8)
    x, g = Moments.correlated(2.0, 0.25), Moments.correlated(3.0, 0.1)
    out, back = block.forward(x), block.backward(x, g)
    assert out.mean_variance == pytest.approx(0.36 * 2.0 + 0.64 * 4.0 * 2.0 / 0.8)
    assert out.mean_covariance == pytest.approx(0.36 * 0.5 + 0.64 * 4.0 * 0.5)
    assert back.mean_variance == pytest.approx(3.0 * (0.36 + 0.64 * 4.0 / 0.8))


def test_a_stack_is_the_chain_of_its_layers_position_by_position() -> None:
    shape = model_shape(num_layers=7, seq_length=12, causal=True, activation="gelu", attention_dropout=0.1)
    layers = [LayerWeights(1 / 64, 1 / 64, 1 / 64, 1 / 64, 1 / 64, 1 / 128, 1.0, 0.1 * n) for n in range(1, 8)]
    x, g = Moments(1.0, 0.1, pair_scatter=0.02), Moments(1.0, 0.2)
    profile = stack_profile(shape, layers, x, g)
    whole = Chain([layer_components(shape, layer) for layer in layers])
    assert len(profile.forward) == len(profile.gradient) == 8
    assert profile.forward[-1].mean_variance == pytest.approx(whole.forward(x).mean_variance)
    assert profile.forward[-1].correlation == pytest.approx(whole.forward(x).correlation)
    assert profile.gradient[0].mean_variance == pytest.approx(whole.backward(x, g).mean_variance)
    assert profile.gradient[-1] == g


def test_one_token_attends_to_itself_alone() -> None:
    attention = Attention(16, 16, 1, 1 / 16, 1 / 16, 1 / 16, 1)
    assert attention.forward(Moments(2.0)).mean_variance == pytest.approx(2.0)
    assert attention.backward(Moments(2.0), Moments(3.0)).mean_variance == pytest.approx(3.0)


def test_layer_norm_of_a_wide_signal_is_the_published_form() -> None:
    x, g = Moments.correlated(4.0, 0.5), Moments.correlated(1.0, 0.3)
    wide = LayerNorm(10**6)
    assert wide.forward(x).mean_covariance == pytest.approx(0.5, rel=1e-5)
    assert wide.backward(x, g).mean_variance == pytest.approx(0.25, rel=1e-5)
    assert wide.backward(x, g).mean_covariance == pytest.approx(0.075, rel=1e-5)


@pytest.mark.parametrize(("d", "r"), slow_but([(2, 0.6)], [(12, 0.9), (8, 0.9), (2, 0.6)]))
def test_layer_norm_of_few_features_against_simulation(d: int, r: float) -> None:
    draw = torch.Generator().manual_seed(2)
    rows = []
    for _ in range(40):
        shared, own = (torch.randn(2, 40_000, n, d, dtype=torch.float64, generator=draw) for n in (1, 2))
        x, g = (math.sqrt(c) * shared[i] + math.sqrt(1 - c) * own[i] for i, c in enumerate((r, 0.5)))
        y = torch.nn.functional.layer_norm(x.requires_grad_(), (d,), eps=0.0)
        rows.append((measured(y)[1], *measured(torch.autograd.grad(y, x, g)[0])))
    norm, inputs = LayerNorm(d), Moments.correlated(1.0, r)
    back = norm.backward(inputs, Moments.correlated(1.0, 0.5))
    expected = np.array([norm.forward(inputs).mean_covariance, back.mean_variance, back.mean_covariance])
    errors = np.std(rows, axis=0, ddof=1) / math.sqrt(len(rows)) + 1e-9
    assert (np.abs(np.mean(rows, axis=0) - expected) < 4.5 * errors).all()
    assert d == 2 or (errors < 1.5e-3).all()


@pytest.mark.parametrize("d", [4, 5, 64, 10**6])
def test_layer_norm_of_equal_tokens_gives_equal_gradients(d: int) -> None:
    x, g = Moments.correlated(1.0, 1.0), Moments.correlated(1.0, 1.0)
    assert LayerNorm(d).forward(x).mean_covariance == pytest.approx(1.0)
    back = LayerNorm(d).backward(x, g)
    assert back.mean_covariance == pytest.approx(back.mean_variance, rel=1e-8)
    assert back.mean_variance == pytest.approx((d - 2) / (d - 3))


def test_a_norm_that_leaves_signs_has_no_gradient() -> None:
    for norm in (LayerNorm(2), LayerNorm(1, centred=False)):
        assert norm.backward(Moments.correlated(1.0, 0.3), Moments(1.0)) == Moments(0.0)


def test_pairs_of_bert_scatter_by_segments_and_words() -> None:
    assert pair_scatter(0.2268, 3) == pytest.approx((0.0137 * (1 - 0.0137) + 0.2) / 9, rel=1e-2)
    assert pair_scatter(0.0, 1) == 0.0


def test_moments_keep_their_means_over_positions() -> None:
    x = Moments.correlated(1.5, 0.4)
    spread = x.by_position(6)
    assert spread.variance.shape == (6,)
    assert spread.correlation == pytest.approx(0.4)
    assert spread.averaged().covariance == pytest.approx(0.6)
    assert spread.averaged().variance == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_correlation(-0.2, 11), r"-0\.2"),
        (lambda: Moments.correlated(1.0, 1.5), "1.5"),
        (lambda: Moments.correlated(0.0, 0.5), "positive"),
        (lambda: Moments(-1.0), "positive"),
        (lambda: Dropout(1.0), "dropout"),
        (lambda: Activation("tanh").forward(Moments(1.0)), "tanh"),
        (lambda: Attention(8, 8, 1, 1.0, 1.0, 1.0, 4).forward(Moments(1.0, -0.5)), "4 tokens"),
        (lambda: Attention(8, 8, 1, 1.0, 1.0, 1.0, 4, causal=True).forward(Moments(1.0, -0.5)), "4 tokens"),
        (lambda: Attention(8, 8, 1, 0.1, 0.1, 1.0, 4).backward(Moments(1.0), Moments(1.0, -0.5)), "4 tokens"),
        (lambda: Attention(8, 8, 1, 1.0, 1.0, 1.0, 4).forward(Moments(0.0)), "no variance"),
        (lambda: Attention(8, 8, 1, 1.0, 1.0, 1.0, 0), "at least one token"),
        (lambda: Attention(8, 8, 3, 1.0, 1.0, 1.0, 4), "3 heads over 8"),
        (lambda: Softmax(0), "at least one logit"),
        (lambda: LayerNorm(1), "1 features"),
        (lambda: LayerNorm(3).backward(Moments(1.0), Moments(1.0)), "infinite"),
        (lambda: LayerNorm(2, centred=False).backward(Moments(1.0), Moments(1.0)), "infinite"),
        (lambda: LayerNorm(8).forward(Moments(0.0)), "epsilon"),
        (lambda: Attention(64, 64, 1, 1.0, 1.0, 1.0, 16).forward(Moments(1.0)), "beyond the theory"),
        (lambda: Activation("relu").forward(Moments(np.array([1.0, 2.0]), np.eye(2))), "one variance"),
    ],
)
def test_values_outside_the_domain_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_cases_beyond_what_was_checked_warn() -> None:
    with pytest.warns(OutsideTheoryWarning, match="logits of variance"):
        Softmax(100).backward(Moments(9.0), Moments(1.0))
    with pytest.warns(OutsideTheoryWarning, match="heads of 8"):
        Attention(64, 64, 8, 1 / 64, 1 / 64, 1 / 64, 16).backward(Moments(1.0), Moments(1.0))
