"""Alerts name what went wrong first, and stay quiet about what is in order."""

import numpy as np
import pytest

from dslm_patches.tracing.alerts import NON_FINITE, Alert, AlertLimits, StandingAlerts, alerts, growth_rates
from dslm_patches.tracing.names import layers_of
from dslm_patches.tracing.record import Site, SiteStatistics, TraceRecord, WeightStatistics
from tests.tracing.recorded_runs import read_recorded

LIMITS = AlertLimits()
LAYERS = 24


def statistics(places: int, **changed: np.ndarray) -> SiteStatistics:
    ones = {name: np.ones(places) for name in ("variance", "rms", "absolute_maximum", "count")}
    zeros = {name: np.zeros(places) for name in ("mean", "correlation", "non_finite")}
    return SiteStatistics(**{**ones, **zeros, **changed})


def record(**ways: dict[str, dict[str, np.ndarray]]) -> TraceRecord:
    """A record whose sites are in order, but for `site={"activation": {"variance": ...}}`."""
    sites = {}
    for name in ("embeddings", "attention", "ffn", "layer", "head"):
        layers = layers_of(name, LAYERS)
        changed = ways.get(name, {})
        both = [statistics(len(layers), **changed.get(way, {})) for way in ("activation", "gradient")]
        sites[name] = Site(layers, *both)
    return TraceRecord(1, sites)


def bad(*layers: int) -> dict[str, np.ndarray]:
    found = np.zeros(LAYERS)
    found[[layer - 1 for layer in layers]] = 3.0
    return {"non_finite": found}


def test_a_sound_step_has_no_alerts() -> None:
    assert alerts(record(), LIMITS) == []


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({"ffn": {"activation": bad(7, 9)}, "layer": {"activation": bad(7, 8)}}, "activation: layer 7, ffn (3 of 1"),
        ({"ffn": {"activation": bad(8)}, "layer": {"activation": bad(7)}}, "activation: layer 7 (3 of 1"),
        ({"attention": {"activation": bad(7)}, "ffn": {"activation": bad(7)}}, "activation: layer 7, attention"),
        ({"ffn": {"gradient": bad(7, 9)}, "layer": {"gradient": bad(8, 9)}}, "gradient: layer 9 (3"),
        ({"ffn": {"gradient": bad(9)}, "layer": {"gradient": bad(8)}}, "gradient: layer 9, ffn"),
        # What the forward pass broke, the backward pass inherits.
        ({"ffn": {"activation": bad(20)}, "layer": {"gradient": bad(3)}}, "activation: layer 20, ffn"),
        ({"head": {"activation": {"non_finite": np.ones(1)}}}, "activation: head (1 of 1"),
        (
            {"embeddings": {"activation": {"non_finite": np.ones(1)}}, "layer": {"activation": bad(1)}},
            "activation: embed",
        ),
    ],
)
def test_the_first_non_finite_tensor_is_named(sites: dict, message: str) -> None:
    found = alerts(record(**sites), LIMITS)
    assert [one.kind for one in found if one.kind == "non-finite"] == ["non-finite"]
    assert f"first non-finite {message}" in found[0].text


def test_a_non_finite_weight_gradient_is_named() -> None:
    sums = np.ones((LAYERS, 8))
    sums[4, 5] = np.nan
    whole = record()
    found = alerts(TraceRecord(1, whole.sites, {"mlp.linear_fc1.weight": WeightStatistics.from_sums(sums)}), LIMITS)
    assert found[0].text == "first non-finite gradient of the weight: layer 5, mlp.linear_fc1.weight"


def test_growth_is_measured_along_its_own_direction() -> None:
    depth = np.arange(LAYERS)
    up = record(layer={"activation": {"variance": 1.3**depth}, "gradient": {"variance": 1.25 ** depth[::-1]}})
    rates = growth_rates(up)
    assert rates == {"activation": pytest.approx(1.3), "gradient": pytest.approx(1.25)}
    (grown,) = alerts(up, LIMITS)
    assert grown.kind == "gradient growth"
    rate = "gradient variance grows towards the embeddings by 1.25 a layer (limit 1.02): 169 at layer 1, 1 at layer 24"
    assert rate in grown.text
    assert alerts(up, AlertLimits(growth=1.26)) == []
    vanishing = record(layer={"activation": {"variance": 0.8**depth}, "gradient": {"variance": 0.8 ** depth[::-1]}})
    (found,) = alerts(vanishing, LIMITS)
    assert (found.kind, "vanishes towards the embeddings by 1.25 a layer" in found.text) == ("gradient growth", True)
    assert "at layer 1, 1 at layer 24; what usually helps" in found.text


def test_a_shallow_model_may_change_its_gradients() -> None:
    assert alerts(record(layer={"gradient": {"variance": 1.2 ** np.arange(LAYERS)}}), LIMITS) == []
    assert alerts(record(layer={"gradient": {"variance": 1.25 ** np.arange(LAYERS)}}), LIMITS) != []


def test_gradients_too_small_for_a_number_have_vanished() -> None:
    (found,) = alerts(record(layer={"gradient": {"variance": np.where(np.arange(LAYERS) < 5, 0.0, 1.0)}}), LIMITS)
    assert found.text.startswith("gradients vanish altogether: 0 at layer 5, a variance of 1 at layer 24; what usually")
    unmeasured = np.where(np.arange(LAYERS) < 5, np.nan, 1.0)
    assert alerts(record(layer={"gradient": {"variance": unmeasured}}), LIMITS) == [], "frozen layers"


def test_a_gradient_of_no_size_at_all_is_no_growth() -> None:
    assert alerts(record(layer={"gradient": {"variance": np.zeros(LAYERS)}}), LIMITS) == []


def test_collapsing_tokens_are_named() -> None:
    correlation = np.linspace(0.5, 0.999, LAYERS)
    (found,) = alerts(record(layer={"activation": {"correlation": correlation}}), LIMITS)
    assert found.kind == "rank collapse"
    first = int(np.flatnonzero(correlation > 0.98)[0]) + 1
    assert f"in one layer, first in layer {first}: their correlation there is 0.9990 (limit 0.98)" in found.text
    (found,) = alerts(record(layer={"activation": {"correlation": correlation + 0.1}}), LIMITS)
    assert "tokens collapse in 6 of 24 layers, first in layer 19" in found.text


COLLAPSE, GROWTH = Alert("rank collapse", "tokens collapse"), Alert("gradient growth", "gradients vanish")
BROKEN = Alert(NON_FINITE, "first non-finite activation")


def test_a_finding_is_told_once_it_stands() -> None:
    standing = StandingAlerts(warmup=20)
    reported = {iteration: standing.new(iteration, [COLLAPSE]) for iteration in range(10, 90, 10)}
    assert {iteration: found for iteration, found in reported.items() if found} == {50: [COLLAPSE]}
    assert standing.new(90, []) == []
    assert [len(standing.new(iteration, [COLLAPSE])) for iteration in (100, 110, 120, 130)] == [0, 0, 1, 0]


def test_findings_stand_each_by_themselves_and_a_broken_tensor_is_told_at_once() -> None:
    standing = StandingAlerts()
    assert standing.new(1, [COLLAPSE]) == []
    assert standing.new(2, [COLLAPSE, GROWTH]) == []
    assert standing.new(3, [COLLAPSE]) == [COLLAPSE]
    assert standing.new(4, [BROKEN, COLLAPSE, GROWTH]) == [BROKEN]
    assert standing.new(5, [BROKEN, GROWTH]) == []
    assert StandingAlerts(warmup=20).new(1, [BROKEN, GROWTH]) == [BROKEN]


def test_a_resumed_run_tells_what_an_uninterrupted_one_tells() -> None:
    standing, resumed = StandingAlerts(), StandingAlerts()
    for iteration in (1, 2):
        standing.new(iteration, [COLLAPSE])
    resumed.load_state_dict(standing.state_dict())
    assert standing.new(3, [COLLAPSE]) == resumed.new(3, [COLLAPSE]) == [COLLAPSE]
    resumed.load_state_dict(standing.state_dict())
    assert resumed.new(4, [COLLAPSE]) == []


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bert-24-dslm", set()),
        ("gpt-48-dslm", set()),
        ("gpt-48-megatron", set()),
        ("gpt-48-megatron-fast", set()),
        ("gpt-48-megatron-post", {"rank collapse", "gradient growth"}),
    ],
)
def test_real_runs_are_judged_by_whether_they_learn(name: str, kinds: set[str]) -> None:
    """Healthy ones ended half a nat below the unigrams, sick ones on their plateau."""
    run = read_recorded(name)
    assert (run.loss < run.unigrams - 0.5) == (not kinds)
    assert (run.loss > run.unigrams - 0.1) == bool(kinds)
    standing = StandingAlerts(run.warmup)
    reported = [alert for one in run.records for alert in standing.new(one.iteration, alerts(one, LIMITS))]
    assert {alert.kind for alert in reported} == kinds
    assert all("layer" in alert.text and "what usually helps" in alert.text for alert in reported)


def test_without_patience_a_healthy_run_would_be_called_sick() -> None:
    run = read_recorded("gpt-48-dslm")
    assert any(alerts(one, LIMITS) for one in run.records if one.iteration <= run.warmup)
