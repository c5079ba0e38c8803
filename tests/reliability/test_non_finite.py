"""A loss that is not a number: nothing is updated, on all ranks; the run stops, or skips and counts."""

import json
import math
from pathlib import Path

import pytest

from tests.corpus import data_flags
from tests.curves import curves
from tests.distributed.pool import RankPool
from tests.reliability.runs import SHAPE

WORKERS = "tests.training.pretrain_workers"
TRAINING = ["--micro-batch-size", "2", "--train-iters", "6", "--lr", "1e-3", "--eval-iters", "0", "--log-interval", "2"]
TP2, PP2 = ["--tensor-model-parallel-size", "2"], ["--pipeline-model-parallel-size", "2"]
SHARDED = ["--use-distributed-optimizer"]


def command(*extra: str) -> list[str]:
    """Two micro-batches a step."""
    return [*SHAPE, *TRAINING, *data_flags("bert"), *extra]


@pytest.mark.parametrize(
    ("world_size", "layout"),
    [(1, []), (2, TP2), (2, PP2), (2, SHARDED), (2, [*SHARDED, "--overlap-grad-reduce", "--overlap-param-gather"])],
)
def test_a_bad_step_changes_nothing_on_any_rank(
    ranks: RankPool, corpus: None, world_size: int, layout: list[str]
) -> None:
    batch = 4 if layout in ([], TP2, PP2) else 8
    argv = command(*layout, "--global-batch-size", str(batch))
    results = ranks.run(world_size, f"{WORKERS}:weights_around_a_bad_step", argv=argv, model="bert")
    for one in results:
        assert one["changed"] == [True, False, True]
        assert [math.isfinite(norm) for norm in one["norm"]] == [True, False, True]
        assert one["skipped"] == 1
        assert one["rate"][0] == one["rate"][1] > one["rate"][2], "the schedule waits"


@pytest.mark.slow
def test_a_run_skips_counts_and_goes_on(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    places = ["--save", f"{tmp_path}/save", "--load", f"{tmp_path}/save", "--tensorboard-dir", f"{tmp_path}/board"]
    argv = command("--global-batch-size", "4", "--on-non-finite", "skip", *places, *TP2, "--trace-interval", "5")
    worker = f"{WORKERS}:run_with_a_bad_loss"
    # Iteration 3 has micro-batches 5 and 6; the tracer runs it again as 7 and 8.
    argv += ["--exit-interval", "4"]
    code, output = ranks.run(2, worker, process_group=False, argv=argv, model="bert", at=[6, 8])[-1]
    assert code == 0, output
    assert "warning: iteration 3: gradient norm nan, lm loss nan, nsp loss nan: not finite, nothing was upd" in output
    assert "skipped, 1 so far" in output
    report = json.loads((tmp_path / "board" / "non_finite_0000003.json").read_text())
    assert report["alerts"], "the tracer says where"
    lines = [line for line in output.splitlines() if line.startswith("iteration ")]
    assert "skipped 1" in lines[1]
    assert "nan" not in lines[1], "the mean is over the finite steps"
    code, output = ranks.run(2, f"{WORKERS}:run", process_group=False, argv=argv, model="bert")[-1]
    assert code == 0, output
    assert "iteration 6/6" in output
    assert "skipped 1" in output, "the count is in the checkpoint"
    assert curves(tmp_path)["training/skipped iterations"] == {4: 1.0, 6: 1.0}


@pytest.mark.parametrize(("world_size", "layout"), [(1, []), (2, PP2)])
def test_a_run_stops_and_names_the_iteration(
    ranks: RankPool, corpus: None, tmp_path: Path, world_size: int, layout: list[str]
) -> None:
    argv = command("--global-batch-size", "4", "--save", f"{tmp_path}/save", "--save-interval", "2", *layout)
    worker = f"{WORKERS}:run_with_a_bad_loss"
    outcomes = ranks.run(world_size, worker, process_group=False, argv=argv, model="bert", at=[6])
    assert [code for code, _ in outcomes] == [1] * world_size
    line = outcomes[-1][1].splitlines()[-1]
    assert line.startswith("pretrain_bert.py: stopped: iteration 3: gradient norm nan, lm loss nan")
    assert [path.name for path in (tmp_path / "save").glob("iter*")] == ["iter_0000002"], "nothing is saved of it"
