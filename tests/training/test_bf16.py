"""bfloat16 with fp32 master weights and gradients, by megatron-core's own optimizer."""

import statistics

import pytest
import torch

from tests.corpus import data_flags
from tests.distributed.pool import RankPool

STEPS = 60
SHAPE = ["--num-layers", "4", "--hidden-size", "64", "--num-attention-heads", "4", "--seq-length", "64", "--dslm"]
TRAINING = ["--micro-batch-size", "4", "--train-iters", str(STEPS), "--lr", "3e-3", "--lr-warmup-iters", "20"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_the_loss_is_fp32s_within_a_hundredth(ranks: RankPool, corpus: None, model: str) -> None:
    argv = [*SHAPE, *TRAINING, *data_flags(model)]
    last = {}
    for dtype, flags in (("fp32", []), ("bf16", ["--bf16"])):
        (steps,) = ranks.run(
            1,
            "tests.distributed.trainer_workers:train",
            timeout=400.0,
            argv=[*argv, *flags],
            model=model,
            steps=STEPS,
        )
        losses = [losses["lm loss"] for losses, _ in steps]
        last[dtype] = statistics.mean(losses[-20:])
        assert last[dtype] < losses[0] - 0.5, "it did not train"
    assert last["bf16"] == pytest.approx(last["fp32"], rel=0.01)
    assert last["bf16"] != last["fp32"]


def test_master_weights_and_gradients_are_fp32(ranks: RankPool, corpus: None) -> None:
    argv = [*SHAPE, *TRAINING, *data_flags("bert"), "--bf16"]
    dtypes = ranks.run(1, "tests.distributed.trainer_workers:dtypes", argv=argv, model="bert")[0]
    assert dtypes == {"weight": torch.bfloat16, "gradient": torch.float32, "master": torch.float32}
