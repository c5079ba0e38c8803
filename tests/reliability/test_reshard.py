"""Changes of layout, of up to four ranks; every pair of up to eight is `python tests/reliability/reshard_table.py`."""

from pathlib import Path

import pytest

from tests.distributed.pool import RankPool
from tests.reliability.reshard_table import Layout, difference, next_losses, save

ONE, TP, PP, DP = (1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)
TP_PP, TP_DP, PP_DP = (2, 2, 1), (2, 1, 2), (1, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "targets"), [(TP_PP, [DP, TP_DP, ONE]), (PP_DP, [TP_PP, TP]), (TP_DP, [PP_DP, PP]), (ONE, [TP_DP])]
)
def test_the_next_losses_do_not_depend_on_the_layout(
    ranks: RankPool, corpus: None, tmp_path: Path, source: Layout, targets: list[Layout]
) -> None:
    save(ranks, source, tmp_path / "saved")
    reference = next_losses(ranks, source, tmp_path / "saved", tmp_path / "same")
    assert len(reference["lm loss"]) == 3
    for target in targets:
        losses = next_losses(ranks, target, tmp_path / "saved", tmp_path / "x".join(map(str, target)))
        assert difference(losses, reference) < 1e-5, target
