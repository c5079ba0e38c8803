"""A GPT of four layers learns more than how often tokens come, in seconds."""

from statistics import mean

from studies.small_models import Setting, run_of
from tests.distributed.pool import RankPool

UNIGRAMS = 4.469
"""Of the text's validation split, as every run on it prints."""


def test_a_few_steps_go_below_the_unigrams(ranks: RankPool, corpus: None) -> None:
    run = run_of(Setting("gpt", 4, 120, sequences=4), "dslm-k0.5", "1e-2")
    argv = [*run.flags, "--train-iters", "120", "--trace-interval", "0"]
    (steps,) = ranks.run(1, "tests.distributed.trainer_workers:train", argv=argv, model="gpt", steps=120)
    losses = [losses["lm loss"] for losses, _ in steps]
    assert mean(losses[-10:]) < UNIGRAMS - 0.3
