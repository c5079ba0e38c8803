"""Transformer Engine's layers against megatron-core's own: same weights, same training, same checkpoints."""

from pathlib import Path

import pytest

from dslm_patches.tracing.trace_file import read_records
from tests.gpu.runs import ENGINE, LOCAL, NO_DROPOUT, losses, needs_gpu, needs_transformer_engine, pretrain

pytestmark = [pytest.mark.gpu, needs_gpu, needs_transformer_engine]


@pytest.mark.parametrize("model", ["bert", "gpt"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_it_trains_as_the_local_layers_do(corpus: None, model: str, placement: str) -> None:
    flags = ["--bf16", *NO_DROPOUT, "--norm-placement", placement]
    engine, local = losses(model, *flags, *ENGINE), losses(model, *flags, *LOCAL)
    assert len(engine) == 20
    assert engine[0] == pytest.approx(local[0], rel=2e-3)
    assert engine == pytest.approx(local, rel=2e-2)


def test_it_is_what_a_gpu_run_takes(corpus: None) -> None:
    assert "transformer_engine layers" in pretrain("gpt", "--bf16", "--train-iters", "2").stdout


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_checkpoints_are_the_same(corpus: None, tmp_path: Path, placement: str) -> None:
    flags = ["--bf16", *NO_DROPOUT, "--norm-placement", placement]
    straight = losses("bert", *flags, *LOCAL)
    kept = ["--save", str(tmp_path), "--load", str(tmp_path)]
    losses("bert", *flags, *ENGINE, *kept, "--exit-interval", "10")
    assert losses("bert", *flags, *LOCAL, *kept) == pytest.approx(straight[10:], rel=2e-2)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_traces_are_the_same(corpus: None, tmp_path: Path, placement: str) -> None:
    sites = ["layer", "attention", "ffn", "embeddings", "head", "weights"]
    flags = ["--bf16", *NO_DROPOUT, "--norm-placement", placement, "--trace-interval", "20", "--trace-sites", *sites]
    records = []
    for impl in (ENGINE, LOCAL):
        losses("bert", *flags, *impl, "--trace-dir", str(tmp_path / impl[1]))
        records.append(next(read_records(tmp_path / impl[1])))
    assert set(records[0].sites) == set(records[1].sites)
    for site in records[0].sites:
        for way in ("activation", "gradient"):
            ours, theirs = (getattr(one.sites[site], way).variance for one in records)
            assert ours == pytest.approx(theirs, rel=2e-2), (site, way)
