"""The pool of ranks that the other distributed tests stand on."""

import time
from pathlib import Path

import pytest

from tests.distributed.pool import RankError, RankPool

WORKERS = "tests.distributed.pool_workers"


def test_results_come_by_rank(ranks: RankPool) -> None:
    results = ranks.run(2, f"{WORKERS}:rank_and_sum", value=1.5)
    assert [r[:2] for r in results] == [(0, 3.0), (1, 3.0)]
    assert ranks.run(1, f"{WORKERS}:rank_and_sum", value=1.5)[0][:2] == (0, 1.5)
    assert ranks.run(2, f"{WORKERS}:rank_and_sum", value=1.5) == results, "seeds are not the same in each call"


def test_functions_of_a_file(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text("def double(x):\n    return 2 * x\n")
    assert ranks.run(1, f"{tmp_path}/workers.py:double", x=21) == [42]


def test_an_exception_comes_back_and_frees_the_others(ranks: RankPool) -> None:
    start = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1: (?s:.*)raise_on(?s:.*)what went wrong"):
        ranks.run(2, f"{WORKERS}:raise_on", rank=1, timeout=60)
    assert time.monotonic() - start < 20
    assert len(ranks.run(2, f"{WORKERS}:rank_and_sum", value=1.0)) == 2


def test_system_exit_is_an_error_of_the_rank(ranks: RankPool) -> None:
    with pytest.raises(RankError, match="SystemExit: bad flag"):
        ranks.run(1, f"{WORKERS}:exit_program")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("exit_process", {"code": 7}, "exit code 7"),
        pytest.param("sleep", {"seconds": 60}, "no answer within 1 s", marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_is_replaced(function: str, arguments: dict[str, int], message: str, ranks: RankPool) -> None:
    with pytest.raises(RankError, match=message):
        ranks.run(1, f"{WORKERS}:{function}", timeout=1, **arguments)
    assert ranks.run(1, f"{WORKERS}:rank_and_sum", value=1.0)[0][1] == 1.0


def test_nothing_global_is_left_for_the_next_call(ranks: RankPool) -> None:
    ranks.run(1, f"{WORKERS}:leave_global_state", layout={})
    assert not any(ranks.run(1, f"{WORKERS}:global_state", process_group=False)[0])
