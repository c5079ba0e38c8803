"""The published claim on the real model: unit forward variance at every depth, on real text with dropout."""

import pytest

from tests.corpus import data_flags
from tests.distributed.pool import RankPool

pytestmark = pytest.mark.slow

WORKER = "tests.distributed.trainer_workers:forward_variances"
BERT = ["--num-layers", "192", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128"]
GPT = ["--num-layers", "48", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128"]
BATCH = ["--micro-batch-size", "4", "--train-iters", "1", "--lr", "1e-4", "--eval-iters", "0"]


def variances(ranks: RankPool, model: str, flags: list[str]) -> list[float]:
    """Forward variance of each layer over one batch."""
    return ranks.run(1, WORKER, argv=[*flags, *BATCH, *data_flags(model)], model=model, timeout=300.0)[0]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_dslm_bert_of_192_layers_keeps_unit_variance(ranks: RankPool, corpus: None, activation: str) -> None:
    measured = variances(ranks, "bert", [*BERT, "--dslm", "--activation", activation])
    assert len(measured) == 192
    assert min(measured) > 0.9, measured
    assert max(measured) < 1.1, measured


def test_xavier_bert_of_192_layers_does_not(ranks: RankPool, corpus: None) -> None:
    measured = variances(ranks, "bert", [*BERT, "--depth-scheme", "xavier", "--activation", "relu"])
    assert measured[-1] > 100


@pytest.mark.parametrize(
    "flags", [[], ["--activation", "swiglu", "--position-embedding-type", "rope", "--normalization", "RMSNorm"]]
)
def test_dslm_gpt_of_48_layers_keeps_unit_variance(ranks: RankPool, corpus: None, flags: list[str]) -> None:
    measured = variances(ranks, "gpt", [*GPT, "--dslm", *flags])
    assert len(measured) == 48
    assert min(measured) > 0.85, measured
    assert max(measured) < 1.15, measured
