"""What is saved is all it takes: resumed runs go on bit for bit, in other layouts to rounding."""

import re
import signal
from pathlib import Path

import pytest

from tests.corpus import data_flags
from tests.curves import curves
from tests.distributed.pool import RankError, RankPool

FAULTS = "tests.reliability.fault_workers"
WORKER = "tests.training.pretrain_workers:run"
SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32", "--dslm"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--train-iters", "6", "--lr", "1e-3"]
LOGGING = ["--log-interval", "1", "--eval-interval", "3", "--eval-iters", "2", "--trace-interval", "2"]
TP2 = ["--tensor-model-parallel-size", "2"]
PP2 = ["--pipeline-model-parallel-size", "2"]
NO_DROPOUT = ["--hidden-dropout", "0", "--attention-dropout", "0"]


def command(model: str, folder: Path, *extra: str) -> list[str]:
    """Flags of a small run that saves, loads and logs under `folder`."""
    places = ["--save", f"{folder}/save", "--load", f"{folder}/save", "--tensorboard-dir", f"{folder}/board"]
    return [*SHAPE, *TRAINING, *LOGGING, *places, *data_flags(model), *extra]


def run(ranks: RankPool, world_size: int, argv: list[str], model: str = "bert") -> tuple[int, str]:
    """Exit code and output of the last rank."""
    return ranks.run(world_size, WORKER, process_group=False, argv=argv, model=model)[-1]


@pytest.mark.parametrize(
    ("model", "world_size", "layout"),
    [
        ("bert", 2, TP2),
        pytest.param("bert", 1, ["--bf16"], marks=pytest.mark.slow),
        pytest.param(
            *("gpt", 2, ["--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather"]),
            marks=pytest.mark.slow,
        ),
        pytest.param("gpt", 2, [*PP2, "--num-layers-per-virtual-pipeline-stage", "1"], marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    ranks: RankPool, corpus: None, tmp_path: Path, model: str, world_size: int, layout: list[str]
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert run(ranks, world_size, command(model, straight, *layout), model)[0] == 0
    assert run(ranks, world_size, command(model, broken, *layout, "--exit-interval", "3"), model)[0] == 0
    code, output = run(ranks, world_size, command(model, broken, *layout), model)
    assert code == 0
    assert "resumed from" in output
    expected = curves(straight)
    assert {"training/lm loss", "validation/loss", "layer gradient variance/0004"} <= set(expected)
    assert len(expected["training/lm loss"]) == 6
    assert curves(broken) == expected
    traces = [(folder / "board" / "trace.jsonl").read_text() for folder in (straight, broken)]
    assert traces[0].count("\n") == 1 + 4, "a header and iterations 1, 2, 4, 6"
    assert traces[1] == traces[0]
    code, output = run(ranks, world_size, command(model, broken, *layout), model)
    assert "done already" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_saves_on_all_and_the_rest_is_as_without_it(
    ranks: RankPool, corpus: None, tmp_path: Path, number: signal.Signals
) -> None:
    straight, asked = tmp_path / "straight", tmp_path / "asked"
    assert run(ranks, 2, command("gpt", straight, *TP2), "gpt")[0] == 0
    call = {"process_group": False, "model": "gpt", "argv": command("gpt", asked, *TP2)}
    code, output = ranks.run(2, f"{FAULTS}:run_with_a_signal", number=int(number), rank=0, at=2, **call)[-1]
    assert code == 0, output
    assert f"{number.name} received: leaving after iteration" in output
    code, output = run(ranks, 2, command("gpt", asked, *TP2), "gpt")
    assert code == 0, output
    assert re.search("resumed from .* at iteration [2-4] of 6", output), output
    assert curves(asked) == curves(straight)


def test_a_kill_inside_a_save_loses_that_save_alone(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    """Rank 0 is gone by SIGKILL when the second checkpoint is written and not yet made current."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run(ranks, 1, command("gpt", straight), "gpt")[0] == 0
    call = {"process_group": False, "model": "gpt", "argv": command("gpt", killed, "--save-interval", "2")}
    with pytest.raises(RankError, match="died with exit code -9"):
        ranks.run(1, f"{FAULTS}:run_killed_in_a_save", at=4, **call)
    assert [path.name for path in (killed / "save").glob("iter_*") if "incomplete" not in path.name] == ["iter_0000002"]
    assert list((killed / "save").glob("iter_0000004.incomplete-*"))
    code, output = run(ranks, 1, command("gpt", killed), "gpt")
    assert code == 0, output
    assert "at iteration 2 of 6" in output
    assert not list((killed / "save").glob("*incomplete*"))
    assert curves(killed) == curves(straight)


@pytest.mark.parametrize("model", ["gpt", pytest.param("bert", marks=pytest.mark.slow)])
def test_a_checkpoint_loads_in_every_layout(ranks: RankPool, corpus: None, tmp_path: Path, model: str) -> None:
    first = command(model, tmp_path, *NO_DROPOUT, *TP2, "--exit-interval", "3", "--use-distributed-optimizer")
    assert run(ranks, 2, first, model)[0] == 0
    losses: dict[str, dict[int, float]] = {}
    layouts: dict[str, tuple[int, list[str]]] = {
        "TP 2": (2, [*TP2, "--use-distributed-optimizer"]),
        "TP 1": (1, ["--use-distributed-optimizer"]),
        "PP 2": (2, [*PP2, "--use-distributed-optimizer"]),
        "DP 2": (2, ["--use-distributed-optimizer"]),
    }
    for name, (world_size, layout) in layouts.items():
        argv = command(model, tmp_path, *NO_DROPOUT, *layout)
        places = {f"{tmp_path}/board": f"{tmp_path}/{name}/board", "--save": "--unused"}
        argv = [places.get(word, word) for word in argv]
        unused = argv.index("--unused")
        code, output = run(ranks, world_size, argv[:unused] + argv[unused + 2 :], model)
        assert code == 0, output
        losses[name] = curves(tmp_path / name)["training/lm loss"]
    assert set(losses["TP 2"]) == {4, 5, 6}
    for name in losses:
        assert losses[name] == pytest.approx(losses["TP 2"], rel=1e-5), name


def test_a_checkpoint_of_another_model_is_refused_by_flag(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    assert run(ranks, 1, command("bert", tmp_path, "--exit-interval", "3"))[0] == 0
    changed = [word.replace("--dslm", "--xavier-flag-sigma") for word in command("bert", tmp_path)]
    code, output = run(ranks, 1, changed)
    assert code == 2
    assert "--depth-scheme xavier (saved: dslm)" in output.strip().splitlines()[-1]


@pytest.mark.slow
def test_weights_alone_begin_a_new_run(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    first = command("bert", tmp_path / "first", *TP2, "--exit-interval", "3")
    assert run(ranks, 2, first)[0] == 0
    pretrained = ["--pretrained-checkpoint", f"{tmp_path}/first/save"]
    code, output = run(ranks, 1, [*command("bert", tmp_path / "second"), *pretrained])
    assert code == 0, output
    assert f"pretrained weights from {tmp_path}/first/save\n" in output
    ended, begun = (curves(tmp_path / name)["validation/loss"] for name in ("first", "second"))
    assert begun[0] == pytest.approx(ended[3], rel=1e-5)
    code, output = run(ranks, 1, [*command("bert", tmp_path / "second"), *pretrained, "--hidden-dropout", "0"])
    assert code == 2
    assert "--hidden-dropout 0.0 contradicts --pretrained-checkpoint" in output.splitlines()[-1]
