"""`dslm profile` measures what hooks on the whole model would, in the memory of a few layers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.corpus import ROOT, data_flags
from tests.distributed.pool import RankPool
from tests.tracing.test_layouts import WORKERS, check_same, check_same_weights

SHAPE = ["--num-layers", "7", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32"]
STEP = ["--micro-batch-size", "2", "--train-iters", "1", "--lr", "1e-3", "--eval-iters", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("keep_every", [1, 3])
@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("bert", ["--dslm"]),
        ("bert", ["--depth-scheme", "xavier", "--norm-placement", "post", "--activation", "relu"]),
        ("gpt", ["--dslm", "--activation", "swiglu", "--position-embedding-type", "rope"]),
        ("gpt", ["--depth-scheme", "megatron", "--norm-placement", "post"]),
    ],
)
def test_a_profile_equals_the_hooks_of_the_whole_model(
    ranks: RankPool, corpus: None, model: str, flags: list[str], keep_every: int
) -> None:
    argv = [*SHAPE, *STEP, *flags, *data_flags(model)]  # with dropout
    (whole,) = ranks.run(1, f"{WORKERS}:trace", argv=argv, model=model)
    (found,) = ranks.run(1, f"{WORKERS}:profile_of", argv=argv, model=model, keep_every=keep_every)
    check_same(found, whole, f"keep every {keep_every}", ("activation", "gradient"))
    names = ("norm", "variance", "gradient_norm", "gradient_variance")
    check_same_weights(found["weights"], whole["weights"], f"keep every {keep_every}", names)


def dslm(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "dslm"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_profiles_random_tokens_and_draws(tmp_path: Path) -> None:
    done = dslm(
        *["profile", "gpt", *SHAPE, "--dslm", "--vocab-size", "500", "--plot", str(tmp_path / "depth.png")],
        *["--trace-dir", str(tmp_path / "run"), "--json", str(tmp_path / "profile.json")],
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "profile.json").read_text())
    variance = np.array(content["sites"]["layer"]["activation"]["variance"])
    assert variance.shape == (7,)
    assert np.all(np.abs(variance - 1.0) < 0.5)
    assert len(content["prediction"]["gradient_variance"]) == 7
    assert (tmp_path / "depth.png").stat().st_size > 5000
    assert "14/14" in done.stderr, "a progress bar over forward and backward"
    plot = dslm("trace", "plot", str(tmp_path / "run"), "--plot", str(tmp_path / "again.svg"))
    assert plot.returncode == 0, plot.stderr
    assert (tmp_path / "again.svg").read_text().count("<path") > 10


@pytest.mark.slow
def test_the_command_profiles_real_text(corpus: None, tmp_path: Path) -> None:
    done = dslm("profile", "bert", *SHAPE, "--dslm", *data_flags("bert"), "--json", str(tmp_path / "profile.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "profile.json").read_text())["sites"]["layer"]["activation"]["count"] == [1024.0] * 7


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--vocab-file", "x"], "--vocab-file goes with --data-path"),
        (["--data-path", "nowhere"], "--data-path needs --vocab-file"),
        (["--hidden-dropout", "1"], "--hidden-dropout"),
        (["--micro-batch-size", "0"], "--micro-batch-size"),
        (["--plot", "x.gif"], "--plot"),
        (["--plot", "x.png", "--trace-sites", "attention"], "--trace-sites layer or weights"),
        (["--trace-dir", "/dev/null/x"], "/dev/null"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], told: str) -> None:
    done = dslm("profile", "bert", *SHAPE, *flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
