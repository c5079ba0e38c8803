"""With the `megatron` scheme our model is megatron-core's, bit for bit."""

import pytest
import torch

from tests.distributed.pool import RankPool


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_outputs_and_gradients_are_equal_bit_for_bit(ranks: RankPool, model: str, tensor_parallel: int) -> None:
    results = ranks.run(
        tensor_parallel,
        "tests.mcore.vanilla_workers:compare_with_plain_megatron",
        layout={"tensor_model_parallel_size": tensor_parallel},
        model=model,
    )
    for ours, plain in results:
        assert ours.keys() == plain.keys()
        assert ours["losses"].std() > 0
        for name in ours:
            assert torch.equal(ours[name], plain[name]), name
