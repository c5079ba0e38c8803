"""The published claim on the real model: unit forward variance at every depth, on real text with dropout.

One draw of a 256-wide model scatters around the theory: the skip and a branch overlap by 1/sqrt(256) at random, which
adds up to about 10 % of the stream's variance. The mean over draws does not.
"""

import numpy as np
import pytest

from tests.corpus import data_flags
from tests.distributed.pool import RankPool

WORKER = "tests.distributed.trainer_workers:forward_variances"
BERT = ["--num-layers", "192", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128"]
GPT = ["--num-layers", "48", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128"]
BATCH = ["--micro-batch-size", "4", "--train-iters", "1", "--lr", "1e-4", "--eval-iters", "0"]


def variances(ranks: RankPool, model: str, flags: list[str]) -> np.ndarray:
    """Forward variance of each layer over one batch."""
    argv = [*flags, *BATCH, *data_flags(model)]
    (measured,) = ranks.run(1, WORKER, argv=argv, model=model, backward=False, timeout=300.0)
    # Seen with `pytest -s`; the numbers in docs/results.md come from here.
    print(f"\n{model} {' '.join(flags)}: {min(measured):.3f}-{max(measured):.3f}, last layer {measured[-1]:.3f}")
    return np.array(measured)


@pytest.mark.slow
def test_dslm_bert_of_192_layers_keeps_unit_variance(ranks: RankPool, corpus: None) -> None:
    measured = variances(ranks, "bert", [*BERT, "--dslm"])
    assert measured.shape == (192,)
    assert measured.min() > 0.9, measured
    assert measured.max() < 1.1, measured


@pytest.mark.slow
def test_dslm_relu_bert_of_192_layers_keeps_unit_variance_over_draws(ranks: RankPool, corpus: None) -> None:
    flags = [*BERT, "--dslm", "--activation", "relu"]
    draws = np.stack([variances(ranks, "bert", [*flags, "--seed", str(seed)]) for seed in (1, 2, 3, 1234)])
    print(f"mean over draws: {draws.mean(axis=0).min():.3f}-{draws.mean(axis=0).max():.3f}")
    assert draws.mean(axis=0).min() > 0.9, draws.mean(axis=0)
    assert draws.mean(axis=0).max() < 1.1, draws.mean(axis=0)
    assert draws.min() > 0.8
    assert draws.max() < 1.2


@pytest.mark.slow
def test_xavier_bert_of_192_layers_does_not(ranks: RankPool, corpus: None) -> None:
    measured = variances(ranks, "bert", [*BERT, "--depth-scheme", "xavier", "--activation", "relu"])
    assert measured[-1] > 100
    assert measured[0] < 10


@pytest.mark.parametrize(
    "flags", [[], ["--activation", "swiglu", "--position-embedding-type", "rope", "--normalization", "RMSNorm"]]
)
def test_dslm_gpt_of_48_layers_keeps_unit_variance(ranks: RankPool, corpus: None, flags: list[str]) -> None:
    measured = variances(ranks, "gpt", [*GPT, "--dslm", *flags])
    assert measured.shape == (48,)
    assert measured.min() > 0.85, measured
    assert measured.max() < 1.15, measured
