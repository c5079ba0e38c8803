"""The kill test in small; the 50 kills of docs/reliability.md are `python tests/reliability/kill_test.py`."""

from pathlib import Path

import pytest

from tests.reliability.kill_test import check


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "extra"), [(2, []), (1, ["--async-save"])])
def test_nothing_is_lost_by_kills(tmp_path: Path, kills: int, extra: list[str]) -> None:
    counts = check(kills, seed=kills, folder=tmp_path, extra=extra)
    assert counts["kills"] == kills
    assert counts["tensors_equal"] > 0
