"""The GPU path: NCCL, bf16, Transformer Engine where installed. Not run by anybody yet: see the README."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dslm_patches.tracing.trace_file import read_records
from tests.corpus import ROOT, data_flags

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none on this machine"),
]

SMALL = ["--num-layers", "8", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128", "--dslm"]
TRAINING = ["--micro-batch-size", "8", "--train-iters", "20", "--lr", "1e-3", "--log-interval", "1"]


def losses(model: str, *flags: str, gpu: bool = True) -> list[float]:
    """LM losses of a short run by torchrun on one rank."""
    environment = os.environ if gpu else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command = [*torchrun, f"pretrain_{model}.py", *SMALL, *TRAINING, "--eval-iters", "0", *flags, *data_flags(model)]
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    found = [float(loss) for loss in re.findall(r"lm loss ([0-9.]+)", output)]
    assert len(found) == 20
    return found


@pytest.mark.parametrize("model", ["bert", "gpt"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_bf16_trains(corpus: None, model: str, placement: str) -> None:
    found = losses(model, "--bf16", "--norm-placement", placement)
    assert found[-1] < found[0] - 0.5


def test_gpu_and_cpu_start_from_the_same_weights(corpus: None) -> None:
    flags = ["--hidden-dropout", "0", "--attention-dropout", "0", "--transformer-impl", "local"]
    assert losses("bert", *flags)[0] == pytest.approx(losses("bert", *flags, gpu=False)[0], rel=1e-3)


def test_a_gpu_run_saves(corpus: None, tmp_path: Path) -> None:
    losses("gpt", "--bf16", "--use-distributed-optimizer", "--save", str(tmp_path))
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "20"


def test_traces_on_gpu_and_cpu_agree(corpus: None, tmp_path: Path) -> None:
    flags = [
        "--hidden-dropout",
        "0",
        "--attention-dropout",
        "0",
        "--transformer-impl",
        "local",
        "--trace-interval",
        "20",
    ]
    records = []
    for gpu in (True, False):
        losses("bert", *flags, "--trace-dir", str(tmp_path / str(gpu)), gpu=gpu)
        records.append(next(read_records(tmp_path / str(gpu))))
    for way in ("activation", "gradient"):
        ours, theirs = (getattr(one.sites["layer"], way).variance for one in records)
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_bf16_training_is_traced(corpus: None, tmp_path: Path, model: str) -> None:
    losses(model, "--bf16", "--trace-interval", "10", "--trace-sites", "layer", "weights", "--trace-dir", str(tmp_path))
    assert [one.iteration for one in read_records(tmp_path)] == [1, 10, 20]
