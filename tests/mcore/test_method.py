"""The method on megatron-core models: what is drawn where, Post-LN, head scale, and what is refused."""

import math

import pytest
import torch

from tests.distributed.pool import RankPool

WORKERS = "tests.mcore.method_workers"


@pytest.mark.parametrize("scheme", ["megatron", "xavier", "dslm"])
def test_every_part_of_fused_weights_has_its_own_std(ranks: RankPool, scheme: str) -> None:
    (found,) = ranks.run(1, f"{WORKERS}:role_statistics", layout={}, scheme=scheme)
    assert len(found) == 4 * 6
    for name, (measured, prescribed, count) in found.items():
        # The standard error of a normal's std is std / sqrt(2 n); a wrong role is off by far more than 5 of them.
        assert measured == pytest.approx(prescribed, abs=5 * prescribed / math.sqrt(2 * count)), name


@pytest.mark.parametrize("gated", [False, True])
def test_shards_of_two_ranks_make_up_the_weights_of_one(ranks: RankPool, gated: bool) -> None:
    (whole,) = ranks.run(1, f"{WORKERS}:whole_weights", layout={}, tensor_parallel=1, gated=gated)
    layout = {"tensor_model_parallel_size": 2}
    first, second = ranks.run(2, f"{WORKERS}:whole_weights", layout=layout, tensor_parallel=2, gated=gated)
    for name, weight in whole.items():
        if first[name].shape == weight.shape:
            assert torch.equal(first[name], weight), name
            assert torch.equal(second[name], weight), name
            continue
        dim = next(d for d in range(weight.dim()) if first[name].shape[d] != weight.shape[d])
        if gated and name.endswith("linear_fc1.weight"):
            halves = zip(first[name].chunk(2), second[name].chunk(2), strict=True)
            together = torch.cat([torch.cat(pair) for pair in halves])
        else:
            together = torch.cat([first[name], second[name]], dim)
        assert torch.equal(together, weight), name


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_post_ln_is_a_norm_after_every_sublayer(ranks: RankPool, model: str) -> None:
    ((ours, reference),) = ranks.run(1, f"{WORKERS}:post_ln_against_reference", layout={}, model=model)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_head_scale_gives_logits_of_unit_variance(ranks: RankPool, model: str) -> None:
    (variance,) = ranks.run(1, f"{WORKERS}:initial_logits_variance", layout={}, model=model)
    assert variance == pytest.approx(1.0, abs=0.15)


def test_shape_is_read_off_the_model(ranks: RankPool) -> None:
    ((bert, gpt),) = ranks.run(1, f"{WORKERS}:shapes", layout={})
    assert (bert.causal, bert.embedding_tables, bert.activation) == (False, 3, "gelu")
    assert (gpt.causal, gpt.embedding_tables, gpt.attention_size) == (True, 2, 128)
    assert bert.input_correlation > 0.2 > gpt.input_correlation


def test_a_weight_without_a_rule_is_named(ranks: RankPool) -> None:
    (message,) = ranks.run(1, f"{WORKERS}:unknown_parameter", layout={})
    assert "decoder.layers.0.mystery.weight" in message


def test_a_scheme_for_the_other_norm_placement_is_refused(ranks: RankPool) -> None:
    (message,) = ranks.run(1, f"{WORKERS}:placement_mismatch", layout={})
    assert "post-LN and the model pre-LN" in message
