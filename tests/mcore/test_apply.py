"""A scheme replaces the one before it, and is put on no model that it does not know."""

import pytest

from tests.distributed.pool import RankPool

WORKERS = "tests.mcore.apply_workers"
ORDERS = [
    ("dslm", "megatron"),
    ("megatron", "dslm"),
    ("dslm", "dslm"),
    ("dslm", "dslm k=1"),
    ("megatron", "xavier"),
    ("dslm", "xavier"),
    ("xavier", "dslm", "megatron"),
    ("kernels", "dslm", "megatron"),
    ("dslm", "kernels", "megatron"),
    ("dslm", "megatron", "kernels"),
    ("kernels", "megatron", "dslm"),
    ("megatron", "kernels", "dslm"),
    ("megatron", "dslm", "kernels"),
    ("kernels", "dslm", "kernels", "megatron"),
]


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_the_last_scheme_is_the_only_one_bit_for_bit(ranks: RankPool, model: str, placement: str) -> None:
    ((found, models),) = ranks.run(1, f"{WORKERS}:unequal", layout={}, orders=ORDERS, model=model, placement=placement)
    assert not found
    assert models >= 4, "schemes and kernels that made no difference would prove nothing"


def test_models_of_another_kind_are_refused_by_name(ranks: RankPool) -> None:
    (found,) = ranks.run(1, f"{WORKERS}:refused_models", layout={})
    for name, messages in found.items():
        assert all(name in message for message in messages), (name, messages)


def test_a_prescription_of_another_model_is_refused(ranks: RankPool) -> None:
    (found,) = ranks.run(1, f"{WORKERS}:foreign_prescriptions", layout={})
    assert found.pop("seq_length") == "", "data decide that"
    assert "3 layers and the model of 2" in found.pop("num_layers")
    for name, message in found.items():
        assert f"a model whose {name} is" in message, name


def test_specs_of_another_kind_are_refused_by_name(ranks: RankPool) -> None:
    (found,) = ranks.run(1, f"{WORKERS}:refused_specs", layout={})
    for name, messages in found.items():
        assert all(name in message for message in messages), (name, messages)


def test_a_post_ln_spec_is_placed_back(ranks: RankPool) -> None:
    assert ranks.run(1, f"{WORKERS}:placed_twice", layout={}) == [["PostLNTransformerLayer", "TransformerLayer"]]


def test_a_scheme_that_is_refused_changes_nothing(ranks: RankPool) -> None:
    assert ranks.run(1, f"{WORKERS}:failed_apply", layout={}) == [(True, True)]
