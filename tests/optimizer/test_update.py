"""The trainer's update beside the step of megatron-core's optimizers, which it takes apart."""

import pytest

from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.reliability.runs import SHAPE

TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--train-iters", "3", "--lr", "1e-3"]
CASES = {
    "fp32": (1, []),
    "bf16": (1, ["--bf16"]),
    "SGD": (1, ["--optimizer", "sgd"]),
    "distributed": (2, ["--use-distributed-optimizer"]),
    "distributed, bf16": (2, ["--use-distributed-optimizer", "--bf16"]),
}


@pytest.mark.parametrize("alone", [False, True], ids=["chain", "alone"])
@pytest.mark.parametrize("case", CASES)
def test_an_update_is_megatron_cores_step_bit_for_bit(ranks: RankPool, corpus: None, case: str, alone: bool) -> None:
    world_size, flags = CASES[case]
    argv = [*SHAPE, *TRAINING, "--eval-iters", "0", "--clip-grad", "0.1", *data_flags("bert"), *flags]
    told = ranks.run(
        world_size, "tests.distributed.trainer_workers:updated_both_ways", argv=argv, model="bert", alone=alone
    )
    for equal, tensors in told:
        assert all(equal)
        assert tensors > 60
