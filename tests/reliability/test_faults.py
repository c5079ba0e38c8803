"""A rank dies, hangs, is stopped or raises: the job ends soon, one line says why, and torchrun goes on by itself."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.curves import curves
from tests.reliability.runs import TP2, Run, command, environment_of_fault, facts, wait_for

FAULTY = "tests/reliability/faulty_pretrain.py"
SECONDS = 30.0
BUG = "ValueError: too many values to unpack"
STEPS = 24


@pytest.mark.parametrize(
    ("kind", "rank", "iteration", "message"),
    [
        ("die", "0", 5, "rank 0, iteration 5: its process died"),
        pytest.param("die", "1", 5, "rank 1, iteration 5: its process died", marks=pytest.mark.slow),
        pytest.param("bug", "all", 5, f"rank [01], iteration 5: {BUG}", marks=pytest.mark.slow),
        pytest.param("bug", "1", 5, f"rank 1, iteration 5: {BUG}", marks=pytest.mark.slow),
        pytest.param("bug", "all", 0, f"rank 0, at the start: {BUG}", marks=pytest.mark.slow),
        pytest.param("mistake", "1", 5, "error: --data-path: one rank's own mistake", marks=pytest.mark.slow),
        pytest.param(
            *("hang", "1", 5, "rank 1, iteration 5: hangs in reliability/faulty_pretrain.py:"), marks=pytest.mark.slow
        ),
        pytest.param("stop", "0", 5, "rank 0, iteration 5: not heard from for 1[5-9] s", marks=pytest.mark.slow),
    ],
)
def test_a_broken_rank_ends_the_job_and_is_named(
    corpus: None, tmp_path: Path, kind: str, rank: str, iteration: int, message: str
) -> None:
    fault = environment_of_fault(kind, rank, iteration, tmp_path)
    run = Run(command(tmp_path, 400, *TP2), program=FAULTY, **fault)
    wait_for(tmp_path / "fault", run)
    run.ranks()
    code, output = run.wait()
    seconds = time.time() - float((tmp_path / "fault").read_text())
    assert code != 0
    assert len(facts(output)) == 1, output
    assert re.match(f"pretrain_bert.py: {message}", facts(output)[0]), output
    assert output.count(f"\n{BUG}") == (kind == "bug"), f"the traceback's last line\n{output}"
    if kind in ("bug", "mistake"):
        assert re.search(rf"exitcode *: {2 if kind == 'mistake' else 1}\b", output), output
    assert seconds < SECONDS, f"{seconds:.0f} s"
    assert not run.left_over()


@pytest.fixture(scope="module")
def straight(corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of STEPS iterations that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    assert Run(command(folder, STEPS, *TP2)).wait()[0] == 0
    return folder


@pytest.mark.slow
def test_torchrun_goes_on_from_the_last_checkpoint_by_itself(straight: Path, tmp_path: Path) -> None:
    argv = command(tmp_path, STEPS, *TP2, "--save-interval", "6")
    load = argv.index("--load")
    fault = environment_of_fault("die", 1, 8, tmp_path, FAULT_ONCE=f"{tmp_path}/once")
    # Without --load: a run that torchrun starts again goes on from its own --save.
    run = Run(argv[:load] + argv[load + 2 :], program=FAULTY, torchrun=("--max-restarts", "1"), **fault)
    code, output = run.wait()
    assert code == 0, output
    assert f"iter_0000006 at iteration 6 of {STEPS}" in output, output
    assert curves(tmp_path) == curves(straight)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_a_run_that_is_asked_to_leave_saves_and_goes_on_bit_for_bit(
    straight: Path, tmp_path: Path, number: signal.Signals, to_all: bool
) -> None:
    asked = tmp_path / "asked"
    # Workers of the data get a scheduler's signals too.
    run = Run(command(asked, STEPS, *TP2, "--save-interval", "3", "--num-workers", "1"))
    wait_for(asked / "save" / "iter_0000003", run)
    if to_all:
        run.process.send_signal(number)  # as a scheduler does, to torchrun, which hands it on
    else:
        os.kill(run.ranks()[1].pid, number)
    code, output = run.wait()
    assert f"{number.name} received: leaving after iteration" in output
    assert (code == 0) == (not to_all), "torchrun itself ends by SIGTERM"
    kept = sorted(path.name for path in (asked / "save").glob("iter_*"))
    last = int(kept[-1].removeprefix("iter_"))
    assert 3 < last < STEPS, kept
    code, output = Run(command(asked, STEPS, *TP2)).wait()
    assert code == 0, output
    assert f"at iteration {last} of {STEPS}" in output
    assert curves(asked) == curves(straight)
