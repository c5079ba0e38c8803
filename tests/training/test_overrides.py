"""A resumed run's settings hold or are refused: what is taken over is what the run then has."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import FOLDER, data_flags
from tests.curves import curves
from tests.data.order_workers import write_documents
from tests.distributed.pool import RankError, RankPool

SHAPE = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "2", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--eval-iters", "0", "--log-interval", "1"]
OVERRIDE = "--override-opt-param-scheduler"


def command(folder: Path, *extra: str, data: list[str] | None = None) -> list[str]:
    """Flags of a small run that saves and loads under `folder`."""
    places = ["--save", f"{folder}/save", "--load", f"{folder}/save", "--tensorboard-dir", f"{folder}/board"]
    return [*SHAPE, *TRAINING, *places, "--trace-interval", "0", *(data or data_flags("bert")), *extra]


def run(ranks: RankPool, argv: list[str], world_size: int = 1) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output, and the state of the run at its end."""
    return ranks.run(world_size, "tests.training.override_workers:run", process_group=False, argv=argv)[-1]


@pytest.fixture(scope="module")
def begun(ranks: RankPool, corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four iterations at a constant rate."""
    folder = tmp_path_factory.mktemp("begun")
    argv = command(folder, "--train-iters", "4", "--lr", "1e-3", "--lr-decay-style", "constant")
    assert run(ranks, argv)[0] == 0
    return folder


@pytest.mark.parametrize(
    "layout", [[], pytest.param(["--bf16"], marks=pytest.mark.slow), ["--use-distributed-optimizer"]]
)
def test_the_flags_hold_in_every_parameter_group(
    ranks: RankPool, corpus: None, tmp_path: Path, layout: list[str]
) -> None:
    first = command(tmp_path, *layout, "--train-iters", "2", "--lr", "1e-3", "--lr-decay-style", "constant")
    assert run(ranks, first)[0] == 0
    numbers = [
        "--adam-beta1",
        "0.5",
        "--adam-beta2",
        "0.6",
        "--adam-eps",
        "1e-4",
        "--weight-decay",
        "0.2",
        "--clip-grad",
        "0.125",
    ]
    course = [
        "--lr",
        "1e-4",
        "--min-lr",
        "1e-5",
        "--lr-decay-style",
        "cosine",
        "--train-iters",
        "4",
        "--clip-grad",
        "0.125",
    ]
    code, output, state = run(ranks, command(tmp_path, *layout, *course, *numbers, OVERRIDE))
    assert code == 0, output
    assert state["clip_grad"] == 0.125
    assert len(state["groups"]) == 2, "with and without weight decay"
    for group in state["groups"]:
        assert group["betas"] == (0.5, 0.6)
        assert group["eps"] == 1e-4
        assert (group["max_lr"], group["min_lr"]) == (1e-4, 1e-5)
        assert group["weight_decay"] == 0.2 * group["wd_mult"]
        assert group["lr"] == pytest.approx(1e-5), "the cosine's end"
    rates = curves(tmp_path)["training/learning rate"]
    assert rates[3] == pytest.approx(1e-5 + 9e-5 * 0.5 * (1 + 2**-0.5 * -1), rel=1e-5), "at 3/4 of a cosine"


def test_without_leave_each_difference_is_one_line(ranks: RankPool, begun: Path) -> None:
    base = command(begun, "--train-iters", "8", "--lr", "1e-3", "--lr-decay-style", "constant")
    for extra, named in (
        (["--adam-beta2", "0.5", "--clip-grad", "0.1"], ["--adam-beta2 0.5 (saved: 0.999)", "--clip-grad 0.1"]),
        (["--lr-warmup-iters", "2", "--lr-warmup-init", "1e-5"], ["--lr-warmup-iters 2 (saved: 0)", OVERRIDE]),
        (["--split", "80,10,10"], ["--split 80,10,10 (saved: 90,5,5)", "--override-settings split"]),
        (["--seed", "1"], ["--seed 1 (saved: 1234)", "--override-settings seed"]),
        (["--hidden-dropout", "0"], ["--hidden-dropout 0.0 (saved: 0.1)", "--override-settings hidden-dropout"]),
        (["--mask-prob", "0.3", OVERRIDE], ["--mask-prob 0.3 (saved: 0.15)"]),
        (["--bf16"], ["--bf16 True (saved: False)", "optimizer"]),
    ):
        code, output, _ = run(ranks, [*base, *extra])
        assert code == 2
        line = output.strip().splitlines()[-1]
        assert line.startswith("pretrain_bert.py: error: --load: ")
        assert all(part in line for part in named), line


def test_a_wsd_decay_of_another_length_is_refused(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    course = ["--train-iters", "6", "--lr", "1e-3", "--lr-decay-style", "WSD", "--lr-decay-iters", "6"]
    first = command(tmp_path, *course, "--lr-wsd-decay-iters", "2", "--exit-interval", "3")
    assert run(ranks, first)[0] == 0
    longer = command(tmp_path, *course, "--lr-wsd-decay-iters", "4", "--lr-wsd-decay-style", "linear")
    code, output, _ = run(ranks, longer)
    assert code == 2
    assert "--lr-wsd-decay-iters 4 (saved: 2); --lr-wsd-decay-style linear (saved: exponential)" in output
    assert run(ranks, [*longer, OVERRIDE])[0] == 0
    rates = curves(tmp_path)["training/learning rate"]
    assert rates[3] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(0.5e-3), "half of four iterations' linear decay"


def test_a_longer_run_takes_the_samples_that_come_next(ranks: RankPool, begun: Path, tmp_path: Path) -> None:
    """--train-iters raised after the end: bit for bit the run that was to be longer from the start."""
    shutil.copytree(begun, tmp_path / "longer")
    course = ["--lr", "1e-3", "--lr-decay-style", "constant"]
    argv = command(tmp_path / "longer", *course, "--train-iters", "8")
    argv[argv.index(f"{tmp_path}/longer/board")] = f"{tmp_path}/longer/second"
    shutil.rmtree(tmp_path / "longer" / "board")
    assert run(ranks, argv)[0] == 0
    straight = command(tmp_path / "straight", *course, "--train-iters", "8")
    assert run(ranks, straight)[0] == 0
    expected = curves(tmp_path / "straight")["training/lm loss"]
    shutil.move(tmp_path / "longer" / "second", tmp_path / "longer" / "board")
    after = curves(tmp_path / "longer")["training/lm loss"]
    assert after == {step: loss for step, loss in expected.items() if step > 4}
    assert len(after) == 4


def test_another_seed_is_dropouts_too(ranks: RankPool, begun: Path, tmp_path: Path) -> None:
    course = ["--train-iters", "6", "--lr", "1e-3", "--lr-decay-style", "constant"]
    shutil.copytree(begun / "save", tmp_path / "run" / "save")
    as_it_was = run(ranks, command(tmp_path / "run", *course))[2]["random_states"]
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(begun / "save", tmp_path / "run" / "save")
    argv = command(tmp_path / "run", *course, "--seed", "77")
    code, output, state = run(ranks, [*argv, "--override-settings", "seed"])
    assert code == 0, output
    new = run(ranks, command(tmp_path / "new", *course, "--seed", "77"))[2]["random_states"]
    assert state["random_states"] == new
    assert as_it_was != new


def test_other_settings_are_taken_by_name_and_hold(ranks: RankPool, begun: Path, tmp_path: Path) -> None:
    """Other data, a larger batch, no dropout: the run goes on at the sample that is next, at the course's iteration."""
    shutil.copytree(begun / "save", tmp_path / "run" / "save")
    sentences = [[[100 + number, 200 + number, 300 + number] for _ in range(4)] for number in range(40)]
    prefix = write_documents(tmp_path / "other", sentences)
    data = ["--data-path", prefix, "--split", "90,5,5", "--vocab-file", f"{FOLDER}/bert-vocab.txt"]
    course = ["--train-iters", "6", "--lr", "1e-3", "--lr-decay-style", "constant", "--hidden-dropout", "0"]
    argv = command(tmp_path / "run", *course, "--global-batch-size", "8", data=data)
    code, output, _ = run(ranks, argv)
    assert code == 2
    named = "--override-settings hidden-dropout global-batch-size data-path"
    assert output.strip().endswith(named), output
    code, output, state = run(ranks, [*argv, *named.split()])
    assert code == 0, output
    assert state["consumed_samples"] == 4 * 4 + 2 * 8
    assert state["schedule_steps"] == 6 * 8, "six iterations in samples of the new batch"
    assert state["hidden_dropout"] == 0.0


def test_another_runs_curves_are_not_written_over(ranks: RankPool, begun: Path, tmp_path: Path) -> None:
    new = command(tmp_path, "--train-iters", "2", "--lr", "1e-2")
    new[new.index(f"{tmp_path}/board")] = f"{begun}/board"
    before = sorted((begun / "board").iterdir())
    code, output, _ = run(ranks, new)
    assert code == 2
    assert f"--tensorboard-dir {begun}/board holds what another run wrote" in output
    assert sorted((begun / "board").iterdir()) == before
    # a third run, which goes on with its own checkpoint
    assert run(ranks, command(tmp_path, "--train-iters", "2", "--lr", "1e-2"))[0] == 0
    code, output, _ = run(ranks, [*new, "--train-iters", "3"])
    assert code == 2
    assert f"--tensorboard-dir {begun}/board holds what another run wrote" in output


def test_an_attempt_that_saved_nothing_is_begun_again_in_its_folders(
    ranks: RankPool, corpus: None, tmp_path: Path
) -> None:
    argv = command(tmp_path, "--train-iters", "2", "--lr", "1e-3")
    assert run(ranks, argv)[0] == 0
    shutil.rmtree(tmp_path / "save")
    assert run(ranks, argv)[0] == 0
    assert list(curves(tmp_path)["training/lm loss"]) == [1, 2]


def test_sigterm_is_heard_by_a_rank_that_waits_for_an_index(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    """The job ends by the rank that got it; the one that builds is ended by that one's word."""
    layout = ["--tensor-model-parallel-size", "2", "--data-cache-path", f"{tmp_path}/cache"]
    argv = command(tmp_path, "--train-iters", "2", "--lr", "1e-3", *layout)
    call = {"process_group": False, "argv": argv, "rank": 1}
    with pytest.raises(RankError, match=r"rank 0: died with exit code 143\n") as error:
        ranks.run(2, "tests.training.override_workers:run_with_an_endless_index", timeout=40.0, **call)
    assert error.value.rank == 0


def test_sigterm_is_heard_while_an_index_is_built(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    argv = command(tmp_path, "--train-iters", "2", "--lr", "1e-3", "--data-cache-path", f"{tmp_path}/cache")
    code, output, seconds = ranks.run(
        1, "tests.training.override_workers:run_with_an_endless_index", process_group=False, argv=argv
    )[0]
    assert code == 128 + 15
    assert "SIGTERM received while the index of" in output
    assert seconds < 5.0
    assert list((tmp_path / "cache").iterdir()) == []
