"""Closed forms against published values, against Monte Carlo, and at their limits."""

import math

import numpy as np
import pytest

from dslm_patches.theory.activations import (
    ACTIVATIONS,
    product_moment,
    second_moment,
)
from dslm_patches.theory.averaging import averaged_values
from dslm_patches.theory.correlation import correlation_profile
from dslm_patches.theory.embeddings import input_correlation
from dslm_patches.theory.ffn import FFN_ACTIVATIONS, balanced_ffn_variance, ffn_correlation, ffn_gain
from dslm_patches.torch_activations import TORCH_ACTIVATIONS
from tests.theory.shapes import model_shape

SAMPLES = 2_000_000


def z_score(sample: np.ndarray, expected: float) -> float:
    """Distance of a sample mean from its expectation in standard errors."""
    return float((sample.mean() - expected) / (sample.std(ddof=1) / math.sqrt(sample.size)))


@pytest.mark.parametrize(("activation", "expected"), [("relu", 0.5), ("gelu", 0.4252), ("silu", 0.3558)])
def test_second_moment_at_unit_variance(activation: str, expected: float) -> None:
    assert second_moment(activation, 1.0) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("variance", "correlation"), [(0.3, 0.2), (1.0, 0.7), (2.5, -0.4)])
def test_product_moment_against_simulation(activation: str, variance: float, correlation: float) -> None:
    z = np.random.default_rng(0).standard_normal((2, SAMPLES))
    x = math.sqrt(variance) * z[0]
    y = math.sqrt(variance) * (correlation * z[0] + math.sqrt(1 - correlation**2) * z[1])
    phi = ACTIVATIONS[activation]
    expected = product_moment(activation, variance, correlation)
    assert abs(z_score(phi(x) * phi(y), expected)) < 4
    square = second_moment(activation, variance)
    assert abs(z_score(phi(x) ** 2, square)) < 4
    assert abs(z_score(phi(x) ** 2, 1.02 * square)) > 4, "a formula that is wrong by 2 % must be seen"


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_balanced_ffn_has_the_wanted_output_variance(activation: str, gated: bool) -> None:
    s = balanced_ffn_variance(activation, gated, 3.0, 0.9)
    assert 3.0 * s * ffn_gain(activation, gated, s) == pytest.approx(0.9, rel=1e-9)


def test_balanced_relu_ffn_is_the_published_recipe() -> None:
    assert balanced_ffn_variance("relu", False, 4.0, 0.9) == pytest.approx(math.sqrt(0.9 / 2))


def test_ffn_correlation_is_one_for_equal_tokens_and_gains_a_factor_when_gated() -> None:
    assert ffn_correlation("relu", False, 1.0, 1.0) == pytest.approx(1.0)
    assert ffn_correlation("silu", True, 1.0, 0.5) == pytest.approx(0.5 * ffn_correlation("silu", False, 1.0, 0.5))


def test_embedding_correlation() -> None:
    assert input_correlation(30522, learned_positions=True, segments=True) == pytest.approx(0.2268, abs=1e-4)
    assert 0.006 < input_correlation(50257, learned_positions=True, segments=False) < 0.007
    rope = input_correlation(50257, learned_positions=False, segments=False)
    assert rope == pytest.approx(0.0127, abs=5e-4)


@pytest.mark.parametrize(
    ("causal", "length"), [(False, 64), (True, 64), pytest.param(True, 512, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("correlation", [0.02, 0.5])
def test_averaged_values_against_simulated_attention(causal: bool, length: int, correlation: float) -> None:
    """Softmax attention with dropout over compound-symmetric values."""
    rng, heads, p = np.random.default_rng(1), 16, 0.1
    variance, covariance = [], []
    for _ in range(24):
        logits = math.sqrt(1 - correlation) * rng.standard_normal((heads, length, length))
        if causal:
            logits = np.where(np.tril(np.ones((length, length))) > 0, logits, -np.inf)
        weights = np.exp(logits)
        weights /= weights.sum(-1, keepdims=True)
        weights *= (rng.random(weights.shape) > p) / (1 - p)
        shared, own = rng.standard_normal((heads, 1, 32)), rng.standard_normal((heads, length, 32))
        out = weights @ (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        variance.append((out**2).mean())
        total = (out.sum(1) ** 2 - (out**2).sum(1)) / (length * (length - 1))
        covariance.append(total.mean())
    expected = averaged_values(correlation, length, 10**9, causal=causal, attention_dropout=p)
    assert np.mean(variance) == pytest.approx(expected.variance, rel=0.03)
    assert np.mean(covariance) == pytest.approx(expected.covariance, rel=0.03)


@pytest.mark.parametrize(
    ("lambda_sq", "beta_sq", "published"),
    [
        (0.995, 0.005, [(0.199, 2.13), (0.504, 1.34), (0.659, 1.17)]),
        (1 - 2 / 192, 2 / 192, [(0.199, 2.13), (0.669, 1.16), (0.789, 1.07)]),
    ],
)
def test_profile_of_192_layers_is_the_published_one(
    lambda_sq: float, beta_sq: float, published: list[tuple[float, float]]
) -> None:
    """r and d w_vo^2 of the first, middle and last layer at p = 0.1, r0 = 0.221, long sequences."""
    shape = model_shape(
        num_layers=192, hidden_size=10**9, seq_length=10**9, attention_dropout=0.1, input_correlation=0.221
    )
    profile = correlation_profile(shape, lambda_sq, beta_sq)
    for layer, (r, gain) in zip((profile[0], profile[96], profile[191]), published, strict=True):
        assert layer.input == pytest.approx(r, abs=6e-4)
        assert math.sqrt(0.9 / layer.self_attention.variance) == pytest.approx(gain, abs=6e-3)


def test_every_activation_that_a_model_may_have_is_known() -> None:
    assert {one.base for one in FFN_ACTIVATIONS.values()} <= set(ACTIVATIONS)
    assert set(TORCH_ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize(("dropout", "fixed_point"), [(0.0, 1.0), (0.05, 0.912), (0.1, 0.835), (0.2, 0.700)])
def test_correlation_goes_to_its_fixed_point(dropout: float, fixed_point: float) -> None:
    shape = model_shape(num_layers=4000, hidden_size=10**9, seq_length=10**9, hidden_dropout=dropout)
    # At dropout 0 the fixed point is reached as 1/layers^2, the others exponentially.
    assert correlation_profile(shape, 0.98, 0.02)[-1].output == pytest.approx(
        fixed_point, abs=2e-3 if dropout else 0.02
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: second_moment("tanh", 1.0), "tanh"),
        (lambda: second_moment("relu", 0.0), "positive"),
        (lambda: product_moment("relu", 1.0, 1.5), "1.5"),
        (lambda: averaged_values(-0.1, 8, 64, causal=False, attention_dropout=0.0), "-0.1"),
        (lambda: averaged_values(0.1, 8, 64, causal=False, attention_dropout=1.0), "dropout"),
        (lambda: input_correlation(0, learned_positions=True, segments=True), "at least one"),
        (lambda: balanced_ffn_variance("relu", False, 0.0, 0.9), "positive"),
    ],
)
def test_values_outside_the_domain_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
