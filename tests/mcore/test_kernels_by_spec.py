"""CPU kernels named in a layer spec, and put into a built model: the same model, bit for bit."""

from typing import Any

import pytest

from tests.distributed.pool import RankPool

WORKERS = "tests.mcore.kernel_workers"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "pre", {}),
    "gpt": ("gpt", "pre", {}),
    "bert, Post-LN": ("bert", "post", {}),
    "gpt of query groups, gated": ("gpt", "post", {"num_query_groups": 2, "gated_linear_unit": True}),
    "no dropout": ("gpt", "pre", {"hidden_dropout": 0.0, "attention_dropout": 0.0}),
    "no biases": ("gpt", "pre", {"add_bias_linear": False}),
    "a sliding window, which no kernel covers": ("gpt", "pre", {"window_size": (4, 0)}),
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_are_one_bit_for_bit(ranks: RankPool, case: str) -> None:
    model, placement, settings = CASES[case]
    (told,) = ranks.run(1, f"{WORKERS}:both_ways", layout={}, model=model, placement=placement, settings=settings)
    assert told["unequal"] == []
    assert told["names"]
    assert told["unlike a plain model"], "kernels that made no difference would prove nothing"
    assert told["specs"], "a copy is changed, in whichever order"
    assert told["classes"] == {
        "qkv": "CpuColumnParallelLinear",
        "core": "CpuAttention",
        "fc1": "CpuMlpInput",
        "fc2": "CpuRowParallelLinear",
    }


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_over_tensor_parallel_ranks(ranks: RankPool, sequence_parallel: bool) -> None:
    settings = {"tensor_model_parallel_size": 2, "sequence_parallel": sequence_parallel}
    layout = {"tensor_model_parallel_size": 2}
    for told in ranks.run(2, f"{WORKERS}:both_ways", layout=layout, model="gpt", placement="pre", settings=settings):
        assert told["unequal"] == []


def test_parts_of_others_stay(ranks: RankPool) -> None:
    (told,) = ranks.run(1, f"{WORKERS}:parts_of_others", layout={})
    assert told == {
        "qkv": True,
        "core": True,
        "attention": True,
        "mlp": (True, "CpuMlpInput", "CpuRowParallelLinear"),
    }
