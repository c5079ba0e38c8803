"""What the tracer measures is exact, and the same whatever the layout, the micro-batches and the recompute."""

from typing import Any

import numpy as np
import pytest

from dslm_patches.tracing.record import QUANTITIES, WEIGHT_QUANTITIES
from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.distributed.test_layouts_agree import LAYOUTS, NO_DROPOUT, PP2, SHAPE, TRAINING

WORKERS = "tests.tracing.tracing_workers"
FULL = ["--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "1"]
MORE_LAYOUTS = {
    **LAYOUTS,
    "recompute": (1, FULL),
    "recompute in blocks": (1, [*FULL[:2], "--recompute-method", "block", "--recompute-num-layers", "2"]),
    "selective recompute": (1, ["--recompute-granularity", "selective"]),
    "TP 2 + SP, recompute": (2, ["--tensor-model-parallel-size", "2", "--sequence-parallel", *FULL]),
    "TP 2 x DP 2, distributed optimizer": (4, ["--tensor-model-parallel-size", "2", "--use-distributed-optimizer"]),
    "PP 2 interleaved x DP 2, distributed optimizer": (
        4,
        [*PP2, "--num-layers-per-virtual-pipeline-stage", "1", "--use-distributed-optimizer"],
    ),
    "DP 2 distributed optimizer, overlapped": (
        2,
        ["--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather"],
    ),
}
SMALL = 1e-5
"""Relative; means and correlations may cross zero, so there it is relative to the standard deviation and to 1."""


def argv_of(model: str, *flags: str) -> list[str]:
    return [*SHAPE, *TRAINING, *NO_DROPOUT, "--eval-iters", "0", "--dslm", *flags, *data_flags(model)]


def numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def check_same(found: dict[str, Any], expected: dict[str, Any], label: str, ways: tuple[str, ...]) -> None:
    """Every statistic of every site within SMALL, and no site that measured nothing in one of the two only."""
    assert found["sites"].keys() == expected["sites"].keys()
    for name, site in expected["sites"].items():
        for way in ways:
            theirs, ours = site[way], found["sites"][name][way]
            deviation = np.sqrt(numbers(theirs["variance"]))
            for quantity in QUANTITIES:
                a, b = numbers(ours[quantity]), numbers(theirs[quantity])
                scale = {"mean": deviation, "correlation": np.ones_like(b)}.get(quantity, np.abs(b))
                where = f"{label}: {name} {way} {quantity}"
                assert np.array_equal(np.isnan(a), np.isnan(b)), where
                assert np.all(np.isnan(a) | (np.abs(a - b) <= SMALL * scale + 1e-30)), f"{where}: {a} {b}"


def check_same_weights(found: dict[str, Any], expected: dict[str, Any], label: str, quantities: Any) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        for quantity in quantities:
            # Gradients themselves differ between layouts by fp32 summation; Adam's first update is nearly their sign.
            tolerance = {"gradient_norm": 1e-4, "gradient_variance": 2e-4, "update_ratio": 1e-3}.get(quantity, SMALL)
            a, b = numbers(found[name][quantity]), numbers(weight[quantity])
            assert np.allclose(a, b, rtol=tolerance, atol=1e-12, equal_nan=True), f"{label}: {name} {quantity}: {a} {b}"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bert", "gpt"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_every_layout_measures_the_same(ranks: RankPool, corpus: None, model: str, placement: str) -> None:
    argv = argv_of(model, "--norm-placement", placement)
    (alone,) = ranks.run(1, f"{WORKERS}:trace", argv=argv, model=model)
    for site in alone["sites"].values():
        assert all(None not in site[way]["variance"] for way in ("activation", "gradient")), "a site saw nothing"
    for name, (world_size, layout) in MORE_LAYOUTS.items():
        if placement == "post" and name == "selective recompute":
            continue  # its default module is core_attn, which Pre-LN covers
        for rank in ranks.run(world_size, f"{WORKERS}:trace", argv=[*argv, *layout], model=model):
            check_same(rank, alone, name, ("activation", "gradient"))
            check_same_weights(rank["weights"], alone["weights"], name, WEIGHT_QUANTITIES)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_micro_batches_add_up(ranks: RankPool, corpus: None, model: str) -> None:
    (four,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of(model), model=model)
    (one,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of(model, "--micro-batch-size", "8"), model=model)
    # BERT's loss is a mean over the masked tokens of a micro-batch: other micro-batches, another loss.
    check_same(one, four, "one micro-batch", ("activation", "gradient") if model == "gpt" else ("activation",))


def visible_logits(model: str, measured: dict[str, Any]) -> float:
    """8 sequences, 4 heads, 32 tokens: a causal mask leaves each token itself and those before it."""
    if model == "gpt":
        return 8 * 4 * 32 * 33 / 2
    return measured["sites"]["logits"]["activation"]["count"][0]  # BERT's mask depends on the padding


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_equals_what_is_computed_by_hand(ranks: RankPool, corpus: None, model: str) -> None:
    (measured,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of(model), model=model)
    (expected,) = ranks.run(1, f"{WORKERS}:by_hand", argv=argv_of(model), model=model)
    assert expected["sites"].keys() == measured["sites"].keys()
    assert expected["sites"]["logits"]["activation"][0]["count"] == visible_logits(model, measured)
    for name, site in expected["sites"].items():
        listed = {way: {q: [one[q] for one in ones] for q in QUANTITIES} for way, ones in site.items()}
        found = {"sites": {name: measured["sites"][name]}}
        check_same(found, {"sites": {name: listed}}, "by hand", tuple(listed))
    check_same_weights(measured["weights"], expected["weights"], "by hand", WEIGHT_QUANTITIES)
    assert len(set(measured["weights"]["mlp.linear_fc1.weight"]["update_ratio"])) == 4
