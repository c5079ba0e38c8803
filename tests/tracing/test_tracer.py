"""The tracer's cost in messages and reads, its arithmetic on awkward data, and what it refuses."""

import numpy as np
import pytest
import torch

from dslm_patches.tracing.record import SiteStatistics
from dslm_patches.tracing.sums import FIELDS, TOKEN_SQUARES, element_sums, token_sums
from tests.corpus import data_flags
from tests.distributed.pool import RankError, RankPool
from tests.tracing.test_layouts import WORKERS, argv_of, check_same, check_same_weights
from tests.tracing.tracing_workers import statistics_of


def statistics(parts: list[torch.Tensor]) -> SiteStatistics:
    """Of one place whose batch is measured in parts [s, b, h]."""
    rows, largest = torch.zeros(len(FIELDS), dtype=torch.float64), 0.0
    for part in parts:
        row, maximum, tokens = token_sums(part)
        row[TOKEN_SQUARES] = tokens.square().sum()
        rows += row
        largest = max(largest, maximum.item())
    return SiteStatistics.from_sums(rows.numpy()[None], np.array([largest]))


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0])
def test_parts_with_unequal_means_add_up_to_the_whole(offset: float) -> None:
    torch.manual_seed(0)
    shared = torch.randn(1, 3, 8)
    parts = [torch.randn(16, 3, 8) + shared + offset * number for number in range(4)]
    found, expected = statistics(parts), statistics_of(torch.cat(parts, dim=1))
    for name, value in expected.items():
        # fp32 data with a mean of 150 deviations carries that much less of the deviations.
        assert getattr(found, name)[0] == pytest.approx(value, rel=1e-5, abs=1e-9), name


def test_ones_are_counted_exactly() -> None:
    found = statistics([torch.ones(5, 2, 3), torch.ones(5, 4, 3)])
    assert (found.count[0], found.mean[0], found.variance[0], found.rms[0]) == (90.0, 1.0, 0.0, 1.0)
    assert (found.absolute_maximum[0], found.non_finite[0]) == (1.0, 0.0)
    assert np.isnan(found.correlation[0]), "what does not vary has no correlation"


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_masked_elements_do_not_count(offset: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5) + offset
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    row, largest = element_sums(x.masked_fill(~seen, -1e4), seen)
    found = SiteStatistics.from_sums(row.numpy()[None], largest.numpy()[None])
    chosen = x[seen.expand_as(x)].double()
    assert found.count[0] == 2 * 3 * 15
    assert found.mean[0] == pytest.approx(chosen.mean().item(), rel=1e-6, abs=1e-8)
    assert found.variance[0] == pytest.approx(chosen.var(correction=0).item(), rel=1e-5)
    assert found.absolute_maximum[0] == pytest.approx(chosen.abs().max().item())
    assert np.isnan(found.correlation[0])


@pytest.mark.parametrize("size", [1e-36, 1e-12, 1e30, 1e37])
def test_small_and_large_numbers_keep_their_digits(size: float) -> None:
    torch.manual_seed(0)
    x = size * torch.randn(64, 2, 16)
    found, expected = statistics([x]), statistics_of(x)
    for name in ("mean", "variance", "rms", "correlation", "absolute_maximum"):
        assert getattr(found, name)[0] == pytest.approx(expected[name], rel=1e-5), name
    row, largest = element_sums(x, None)
    elements = SiteStatistics.from_sums(row.numpy()[None], largest.numpy()[None])
    for name in ("mean", "variance", "rms", "absolute_maximum"):
        assert getattr(elements, name)[0] == pytest.approx(expected[name], rel=1e-5), name


def test_long_sums_are_exact() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 4, 8192)
    found, expected = statistics([x]), x.double()
    assert found.variance[0] == pytest.approx(expected.var(correction=0).item(), rel=1e-6)
    assert found.rms[0] == pytest.approx(expected.square().mean().sqrt().item(), rel=1e-6)


def test_non_finite_values_are_counted_in_bf16_too() -> None:
    x = torch.randn(4, 2, 8).to(torch.bfloat16)
    x[0, 0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    assert statistics([x, torch.ones(4, 2, 8)]).non_finite[0] == 3.0
    assert element_sums(x, None)[0][FIELDS.index("non_finite")] == 3.0


@pytest.mark.parametrize(
    ("world_size", "layout", "collectives"),
    [
        (1, [], 2),
        (2, ["--tensor-model-parallel-size", "2"], 2),
        pytest.param(2, ["--pipeline-model-parallel-size", "2"], 2, marks=pytest.mark.slow),
        pytest.param(2, [], 2, marks=pytest.mark.slow),
        # The sums over tokens are added over the shards of a sequence before they are squared.
        pytest.param(2, ["--tensor-model-parallel-size", "2", "--sequence-parallel"], 3, marks=pytest.mark.slow),
    ],
)
def test_a_traced_step_communicates_twice_and_others_not_at_all(
    ranks: RankPool, corpus: None, world_size: int, layout: list[str], collectives: int
) -> None:
    argv = argv_of("bert", *layout)
    for deeper in ([], ["--num-layers", "8"]):
        for seen in ranks.run(world_size, f"{WORKERS}:count_communication", argv=[*argv, *deeper], model="bert"):
            assert seen["untraced"]["collectives"] > 0
            assert seen["off"] == seen["untraced"], "between traced steps nothing is sent or read"
            assert seen["traced"]["collectives"] - seen["untraced"]["collectives"] == collectives
            # Two packed transfers, and on CPU what torch itself reads of the copies; no more for more layers.
            assert seen["traced"]["reads"] - seen["untraced"]["reads"] <= 8, seen


def test_a_loss_scale_is_taken_out(ranks: RankPool, corpus: None) -> None:
    (plain,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of("bert"), model="bert")
    for world_size, layout in ((1, []), (2, [])):
        argv = argv_of("bert", *layout)
        for rank in ranks.run(world_size, f"{WORKERS}:trace_with_loss_scale", argv=argv, model="bert", scale=1024.0):
            check_same(rank, plain, "loss scale", ("activation", "gradient"))
            names = ("norm", "variance", "gradient_norm", "gradient_variance")
            check_same_weights(rank["weights"], plain["weights"], "loss scale", names)


def test_a_traced_step_lets_go_of_its_graph(ranks: RankPool, corpus: None) -> None:
    (alive,) = ranks.run(1, f"{WORKERS}:memory_of_steps", argv=argv_of("bert"), model="bert")
    assert alive[2] == alive[1]


def test_frozen_layers_have_no_gradient(ranks: RankPool, corpus: None) -> None:
    (seen,) = ranks.run(1, f"{WORKERS}:trace_frozen", argv=argv_of("gpt"), model="gpt", frozen_layers=2)
    gradient = seen["sites"]["layer"]["gradient"]["variance"]
    assert gradient[0] is None
    assert None not in gradient[2:]
    weight = seen["weights"]["mlp.linear_fc1.weight"]
    assert weight["gradient_norm"][:2] == [None, None]
    assert weight["update_ratio"][:2] == [0.0, 0.0]
    assert min(weight["update_ratio"][2:]) > 0.0


def test_bf16_is_measured_in_its_own_precision(ranks: RankPool, corpus: None) -> None:
    (single,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of("bert"), model="bert")
    (half,) = ranks.run(1, f"{WORKERS}:trace", argv=argv_of("bert", "--bf16"), model="bert")
    for way in ("activation", "gradient"):
        for quantity in ("variance", "rms"):
            a, b = (one["sites"]["layer"][way][quantity] for one in (half, single))
            assert a == pytest.approx(b, rel=0.02)
            assert a != b
    fc1 = [one["weights"]["mlp.linear_fc1.weight"] for one in (half, single)]
    for quantity in ("norm", "gradient_norm", "update_ratio"):  # the update is that of the fp32 weights
        assert fc1[0][quantity] == pytest.approx(fc1[1][quantity], rel=0.05), quantity


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"num_moe_experts": 4}, "mixture of experts"),
        ({"calculate_per_token_loss": True}, "calculate_per_token_loss"),
        ({"cuda_graph_impl": "local"}, "CUDA graphs"),
        ({"fp8": "hybrid"}, "fp8"),
        ({"mtp_num_layers": 1}, "multi-token prediction"),
        ({"context_parallel_size": 2}, "context parallelism"),
        ({"num_distributed_optimizer_instances": 2}, "several instances of the distributed optimizer"),
    ],
)
def test_modes_that_are_not_covered_are_refused_by_name(
    ranks: RankPool, corpus: None, change: dict[str, object], feature: str
) -> None:
    with pytest.raises(RankError, match=f"tracing does not cover {feature}"):
        ranks.run(1, f"{WORKERS}:trace_changed", argv=argv_of("gpt"), model="gpt", change=change)


def test_an_unknown_site_is_refused(ranks: RankPool, corpus: None) -> None:
    with pytest.raises(RankError, match="'logit' is not a trace site: known are layer, attention"):
        ranks.run(1, f"{WORKERS}:trace", argv=argv_of("gpt"), model="gpt", sites=("logit",))


def test_hooks_come_off(ranks: RankPool, corpus: None) -> None:
    assert ranks.run(1, f"{WORKERS}:hooks_left", argv=[*argv_of("gpt"), *data_flags("gpt")], model="gpt") == [0]
