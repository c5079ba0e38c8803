"""Simulation and theory against each other: errors within the published ones, no bias hidden, wrong formulas seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dslm_patches.simulation.draws import Draws, Settings
from dslm_patches.simulation.estimates import Comparison, Estimate, ratio_estimate, variance_estimate
from dslm_patches.simulation.grids import (
    GRIDS,
    ActivationGrid,
    AttentionGrid,
    DropoutGrid,
    Grid,
    LayerNormGrid,
    LinearGrid,
    SoftmaxGrid,
)
from dslm_patches.simulation.parts import own_and_pair, part_products, signal_weights, stack_batches
from dslm_patches.simulation.run import SIMULATIONS, grid_of, simulate, within
from tests.marks import slow_but

# One configuration each, away from the corners, so that seeds give independent z-scores.
POINT: dict[str, Grid] = {
    "linear": LinearGrid((64,), (96,), (20,), (0.5,), (1.0,), (0.4,), (1.5,), (0.3,), (1.2,)),
    "relu": ActivationGrid((50,), (1.3,), (0.5,), (0.8,), (0.4,)),
    "gelu": ActivationGrid((50,), (1.3,), (0.5,), (0.8,), (0.4,)),
    "layernorm": LayerNormGrid((100,), (20,), (3.0,), (2.0,), (0.5,), (1.5,), (0.3,)),
    "dropout": DropoutGrid((100,), (20,), (0.3,), (2.0,), (1.0,), (0.5,), (1.5,), (0.3,)),
}
SEEDS = 40


def wrong(comparison: Comparison, factor: float = 1.02) -> Comparison:
    """The same with a formula that is off by a factor."""
    return replace(comparison, predicted=factor * comparison.predicted)


# As negative as 16 tokens can be correlated, and half of that; gradients likewise.
LOWEST = -1.0 / 15
NEGATIVE: dict[str, Grid] = {
    "linear": LinearGrid((64,), (96,), (16,), (0.5,), (1.0,), (LOWEST / 2, LOWEST), (1.5,), (LOWEST,), (1.2,)),
    "relu": ActivationGrid((16,), (1.3,), (LOWEST / 2, LOWEST), (0.8,), (LOWEST,)),
    "gelu": ActivationGrid((16,), (1.3,), (LOWEST / 2, LOWEST), (0.8,), (LOWEST,)),
    "layernorm": LayerNormGrid((100,), (16,), (3.0,), (2.0,), (LOWEST / 2, LOWEST), (1.5,), (LOWEST,)),
    "dropout": DropoutGrid((100,), (16,), (0.3,), (2.0,), (1.0,), (LOWEST / 2, LOWEST), (1.5,), (LOWEST,)),
    "softmax": SoftmaxGrid((16,), (1.0,), (LOWEST / 2, LOWEST), (1.5,)),
    "attention": AttentionGrid((100,), (32,), (16,), (LOWEST,), (0.6,), (0.1,), (1.0,), (1.0,), (LOWEST,)),
}


def test_the_grids_are_the_published_ones() -> None:
    counts = {name: grid.configurations for name, grid in GRIDS.items()}
    assert counts == {
        "linear": 13122,
        "relu": 450,
        "gelu": 450,
        "layernorm": 4050,
        "dropout": 4374,
        "softmax": 625,
        "attention": 26244,
    }
    assert sum(counts.values()) == 49315


@pytest.mark.parametrize("component", slow_but(["relu", "layernorm"], POINT))
def test_z_of_an_exact_formula_is_standard_normal_and_of_a_wrong_one_is_not(component: str) -> None:
    """Mean and mean square of z over independent seeds; the bounds are four standard errors of a t-distribution's."""
    runs = [SIMULATIONS[component](POINT[component], Settings(seed=seed, effort=0.15)) for seed in range(SEEDS)]
    for right in zip(*runs, strict=True):
        quantity = right[0].quantity
        if all(one.simulated.standard_error.max() < 1e-6 for one in right):
            # The same in every draw, as the variance behind a norm is.
            assert all(one.errors.max() < 1e-3 for one in right), quantity
            continue
        z = np.array([float(one.z[0]) for one in right])
        assert abs(z.mean()) < 4.0 / np.sqrt(SEEDS), f"{component} {quantity}: biased, mean z {z.mean():.2f}"
        assert 0.3 < np.mean(z**2) < 2.3, f"{component} {quantity}: standard errors are off, {np.mean(z**2):.2f}"
        bad = np.array([float(wrong(one).z[0]) for one in right])
        assert abs(bad.mean()) > 4.0 / np.sqrt(SEEDS), f"{component} {quantity}: a factor of 1.02 is not seen"


@pytest.mark.slow
@pytest.mark.parametrize("component", ["relu", "gelu", "layernorm", "dropout", "softmax"])
def test_errors_over_the_published_grid_are_within_the_published_ones(component: str) -> None:
    (result,) = simulate([component], "full", Settings(effort=0.3))  # a third of what `dslm simulate` draws
    assert result.configurations == GRIDS[component].configurations
    for comparison in result.comparisons:
        assert comparison.predicted.shape == (result.configurations,)
        assert within(component, comparison), f"{comparison.quantity}: {comparison.percentiles()}"
        if np.any(comparison.predicted != 0.0) and comparison.percentiles()[2] > 0.0:
            bad = wrong(comparison)
            seen = not within(component, bad) or np.abs(bad.z).max() > 8.0
            assert seen, f"{comparison.quantity}: a factor of 1.02 is not seen"


@pytest.mark.parametrize("component", NEGATIVE)
def test_negative_correlations_are_simulated(component: str) -> None:
    for comparison in SIMULATIONS[component](NEGATIVE[component], Settings()):
        assert np.isfinite(comparison.simulated.value).all(), comparison.quantity
        assert np.abs(comparison.z).max() < 4.5, comparison.quantity
        if comparison.quantity.endswith("covariance") and comparison.simulated.standard_error.max() > 1e-6:
            assert np.abs(wrong(comparison, 1.5).z).max() > 8.0, comparison.quantity


def test_correlations_that_the_tokens_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"16 tokens .* \[-0.06667, 1\]"):
        replace(NEGATIVE["linear"], correlations=(-0.07,))
    with pytest.raises(ValueError, match="300 tokens"):
        AttentionGrid(gradient_correlations=(-0.01,))
    with pytest.raises(ValueError, match="two tokens"):
        SoftmaxGrid(lengths=(1,))


def test_linear_and_attention_on_a_small_part_of_their_grids() -> None:
    grids: dict[str, Grid] = {
        "linear": LinearGrid(d_in=(100,), d_out=(316,), lengths=(100,)),
        "attention": AttentionGrid(
            sizes=(100,), head_sizes=(32,), lengths=(300,), query_stds=(0.1, 0.6), dropouts=(0.0, 1 / 3)
        ),
    }
    for component, grid in grids.items():
        for comparison in SIMULATIONS[component](grid, Settings()):
            assert within(component, comparison), f"{component} {comparison.quantity}: {comparison.percentiles()}"
            assert np.abs(comparison.z).max() < 5.0
            if comparison.quantity != "x mean":
                assert np.abs(wrong(comparison, 1.1).z).max() > 8.0


def test_the_error_of_attentions_gradient_covariance_is_relative() -> None:
    grid = AttentionGrid((100,), (32,), (100,), (0.1,), (0.6,), (0.0,), (1.0,), (1.0,), (0.0,))
    by_name = {one.quantity: one for one in SIMULATIONS["attention"](grid, Settings(effort=0.2))}
    covariance, variance = by_name["g covariance"], by_name["g variance"]
    bad = wrong(covariance, 1.5)
    assert covariance.predicted[0] < 0.75 * variance.predicted[0]
    assert bad.errors[0] > 40.0, "of the covariance, not of the variance"


def test_attention_where_deepscalelm_uses_it() -> None:
    """Queries and keys of variance 1/d: the published check stops at 0.6^2 / d, and its formula fails here."""
    grid = AttentionGrid((256,), (64,), (300,), (0.1, 0.5), (1.0,), (0.0, 0.1), (1.0,), (1.0,), (0.0, 0.5))
    for comparison in SIMULATIONS["attention"](grid, Settings()):
        assert comparison.errors.max() < 6.0, f"{comparison.quantity}: {comparison.errors}"


def test_sums_give_the_covariance_of_the_whole_matrix() -> None:
    y = torch.randn(7, 300, generator=torch.Generator().manual_seed(1)).double()
    products = (y @ y.T / 300).numpy()
    own, pair = own_and_pair(y, y)
    assert own == pytest.approx(np.trace(products) / 7)
    assert pair == pytest.approx((products.sum() - np.trace(products)) / 42)


def test_parts_give_the_moments_of_the_signal_they_make_up() -> None:
    draws = Draws(Settings(dtype=torch.float64), "test")
    parts = [torch.ones(1, 50, dtype=torch.float64), draws.normal(1, 50), draws.own_parts(6, 50)]
    moments = stack_batches([part_products(parts)] * 2)
    weights = signal_weights(np.array([0.7]), np.array([1.5]), np.array([0.4]), 6)
    y = sum(weight * part for weight, part in zip(weights[0], parts, strict=True))
    own, pair = own_and_pair(y, y)
    assert moments.mean_of(weights).value[0] == pytest.approx(y.mean().item())
    assert moments.variance_of(weights).value[0] == pytest.approx(own - y.mean().item() ** 2)
    assert moments.covariance_of(weights).value[0] == pytest.approx(pair - y.mean().item() ** 2)


def test_means_that_a_sign_flip_cancels_are_zero_in_plain_draws_too() -> None:
    """The grids take these means as zero by symmetry; here the weights' signs are left as drawn."""
    draws = Draws(Settings(seed=3), "plain means")
    linear, attention = [], []
    for _ in range(300):
        x = 2.0 + draws.normal(20, 64)
        query, key, value = (x @ draws.normal(32, 64).T / 8.0 for _ in range(3))
        linear.append(value.mean().item())
        attention.append((torch.softmax(query @ key.T / 32**0.5, dim=-1) @ value).mean().item())
    for means in (np.array(linear), np.array(attention)):
        error = means.std(ddof=1) / np.sqrt(len(means))
        assert abs(means.mean()) < 4.0 * error
        assert error < 0.1


def test_tokens_and_strata_have_the_moments_they_should() -> None:
    a, b = Draws(Settings(dtype=torch.float64), "strata").stratified_normals(40)
    for values in (a, b):
        assert abs(values.mean()) < 2e-3
        assert values.square().mean().item() == pytest.approx(1.0, abs=2e-2)
    assert abs((a * b).mean()) < 2e-2


def test_estimators() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (400, 50))
    estimate = variance_estimate(draws.mean(axis=1), (draws**2).mean(axis=1))
    assert abs(estimate.value - 4.0) < 4 * estimate.standard_error
    control = np.random.default_rng(1).gamma(4.0, 0.25, 100)
    noisy = 2.0 * control + np.random.default_rng(2).normal(0.0, 0.01, 100)
    ratio = ratio_estimate(noisy, control, 1.0)
    assert ratio.value == pytest.approx(2.0, abs=0.01)
    assert ratio.standard_error < 0.01 < noisy.std(ddof=1) / 10


def test_a_seed_gives_the_same_draws_and_another_one_others() -> None:
    grid = SoftmaxGrid(lengths=(300,), stds=(0.5,), correlations=(0.2,), gradient_stds=(1.0,))

    def variance(seed: int) -> float:
        return float(SIMULATIONS["softmax"](grid, Settings(seed=seed, effort=0.02))[1].simulated.value[0])

    assert variance(1) == variance(1)
    assert variance(1) != variance(2)


def test_an_error_may_be_counted_in_the_variance() -> None:
    one = Comparison("x mean", Estimate(np.array([0.001]), np.array([0.1])), np.array([0.0]), np.array([2.0]))
    assert one.errors[0] == pytest.approx(0.05)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="tanh"):
        grid_of("tanh", "full")
    with pytest.raises(ValueError, match="huge"):
        grid_of("relu", "huge")
