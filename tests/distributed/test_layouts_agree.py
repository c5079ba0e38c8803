"""Every layout trains the same model: losses and gradient norms of five real optimizer steps."""

import itertools

import pytest

from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.marks import slow_but

SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "8", "--train-iters", "5", "--lr", "1e-3"]
NO_DROPOUT = ["--hidden-dropout", "0", "--attention-dropout", "0"]

TP2 = ["--tensor-model-parallel-size", "2"]
PP2 = ["--pipeline-model-parallel-size", "2"]
LAYOUTS = {
    "TP 2": (2, TP2),
    "TP 2 + SP": (2, [*TP2, "--sequence-parallel"]),
    "PP 2": (2, PP2),
    "PP 2 interleaved": (2, [*PP2, "--num-layers-per-virtual-pipeline-stage", "1"]),
    "TP 2 x PP 2": (4, [*TP2, *PP2]),
    "DP 2": (2, []),
    "DP 2 distributed optimizer": (2, ["--use-distributed-optimizer"]),
    "megatron-core's own operations": (1, ["--no-cpu-kernels"]),
    "megatron-core's own operations, TP 2 + SP": (2, [*TP2, "--sequence-parallel", "--no-cpu-kernels"]),
}
MODELS = list(itertools.product(("bert", "gpt"), ("pre", "post"), ("megatron", "dslm")))
SHORT = [("bert", "pre", "dslm"), ("gpt", "post", "megatron")]
# No ReLU: a rounding that flips one unit at its kink shows in the gradient norm.
VARIANTS = [
    ("gpt", "pre", "dslm", ["--activation", "swiglu", "--position-embedding-type", "rope"]),
    ("gpt", "post", "dslm", ["--group-query-attention", "--num-query-groups", "2", "--disable-bias-linear"]),
    ("bert", "pre", "dslm", ["--untie-embeddings-and-output-weights"]),
]


def check_layouts(ranks: RankPool, model: str, flags: list[str]) -> None:
    """Trains in TP 1 and in every layout; losses within 1e-5 relative, gradient norms within 1e-4."""
    two_micro_batches = ["--global-batch-size", "4"]  # four are in tests/tracing/test_layouts.py
    argv = [*SHAPE, *TRAINING, *two_micro_batches, "--eval-iters", "0", *NO_DROPOUT, *flags, *data_flags(model)]
    worker = "tests.distributed.trainer_workers:train"
    (expected,) = ranks.run(1, worker, argv=argv, model=model, steps=5)
    assert expected[0][0]["lm loss"] != expected[-1][0]["lm loss"], "the reference did not train"
    for name, (world_size, layout) in LAYOUTS.items():
        steps = ranks.run(world_size, worker, argv=[*argv, *layout], model=model, steps=5)[-1]
        for number, ((losses, norm), (their_losses, their_norm)) in enumerate(zip(steps, expected, strict=True)):
            where = f"{name}, step {number}"
            assert losses == pytest.approx(their_losses, rel=1e-5), where
            assert norm == pytest.approx(their_norm, rel=1e-4), where


@pytest.mark.parametrize(("model", "placement", "scheme"), slow_but(SHORT, MODELS))
def test_layouts_agree(ranks: RankPool, corpus: None, model: str, placement: str, scheme: str) -> None:
    check_layouts(ranks, model, ["--norm-placement", placement, "--depth-scheme", scheme])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "placement", "scheme", "flags"), VARIANTS)
def test_layouts_agree_for_other_architectures(
    ranks: RankPool, corpus: None, model: str, placement: str, scheme: str, flags: list[str]
) -> None:
    check_layouts(ranks, model, ["--norm-placement", placement, "--depth-scheme", scheme, *flags])
