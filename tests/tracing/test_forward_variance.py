"""The forward variance of each layer is exact over the batch, whatever the layout."""

import pytest
import torch

from dslm_patches.tracing.forward_variance import _merge, _moments
from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.distributed.test_layouts_agree import LAYOUTS, NO_DROPOUT, SHAPE, TRAINING

WORKERS = "tests.distributed.trainer_workers"


def test_moments_of_parts_with_different_means_merge_to_the_whole() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(50 * (n + 1)) + 100 * n for n in range(4)]
    merged = _moments(parts[0])
    for part in parts[1:]:
        merged = _merge(merged, _moments(part))
    whole = torch.cat(parts).double()
    assert merged[0] == whole.numel()
    assert merged[1].item() == pytest.approx(whole.mean().item(), rel=1e-6)
    assert (merged[2] / merged[0]).item() == pytest.approx(whole.var(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_every_layout_measures_the_same(ranks: RankPool, corpus: None, model: str) -> None:
    argv = [*SHAPE, *TRAINING, *NO_DROPOUT, "--eval-iters", "0", "--dslm", *data_flags(model)]
    (by_hand,) = ranks.run(1, f"{WORKERS}:forward_variances_by_hand", argv=argv, model=model)
    assert len(by_hand) == 4
    assert len(set(by_hand)) == 4
    recompute = ["--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "1"]
    one_micro_batch = ["--micro-batch-size", "8"]
    layouts = {**LAYOUTS, "TP 1": (1, []), "recompute": (1, recompute), "one micro-batch": (1, one_micro_batch)}
    for name, (world_size, layout) in layouts.items():
        for rank in ranks.run(world_size, f"{WORKERS}:forward_variances", argv=[*argv, *layout], model=model):
            assert rank == pytest.approx(by_hand, rel=1e-5), name
