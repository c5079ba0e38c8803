"""Short runs of the entry points on a GPU, or on the same machine's CPU, and the losses that they print."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tests.corpus import ROOT, data_flags

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here")
needs_transformer_engine = pytest.mark.skipif(
    find_spec("transformer_engine") is None, reason="needs Transformer Engine, which is not installed here"
)
SMALL = ["--num-layers", "8", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128", "--dslm"]
TRAINING = ["--micro-batch-size", "8", "--train-iters", "20", "--lr", "1e-3", "--log-interval", "1"]
NO_DROPOUT = ["--hidden-dropout", "0", "--attention-dropout", "0"]
LOCAL, ENGINE = ["--transformer-impl", "local"], ["--transformer-impl", "transformer_engine"]


def python(*words: str, gpu: bool = True, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A Python program in the project's folder; fails with its output unless it ends with `code`."""
    environment = os.environ if gpu else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def pretrain(model: str, *flags: str, gpu: bool = True) -> subprocess.CompletedProcess[str]:
    """A run of 20 iterations by torchrun on one rank."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command = [f"pretrain_{model}.py", *SMALL, *TRAINING, "--eval-iters", "0", *flags, *data_flags(model)]
    return python(*torchrun, *command, gpu=gpu)


def losses(model: str, *flags: str, gpu: bool = True) -> list[float]:
    """Its LM losses."""
    return [float(loss) for loss in re.findall(r"lm loss ([0-9.]+)", pretrain(model, *flags, gpu=gpu).stdout)]
