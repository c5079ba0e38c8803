"""A mistake under torchrun: every rank leaves at once, and the line is there once."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_mistake_under_torchrun_leaves_no_rank_behind() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    flags = "--num-layers 4 --hidden-size 8 --num-attention-heads 2 --seq-length 8 --micro-batch-size 1 --lr 1"
    words = [*flags.split(), "--train-iters", "1", "--tensor-model-parallel-size", "2", "--data-path", "x"]
    done = subprocess.run(
        [*torchrun, "pretrain_bert.py", *words, "--vocab-file", "y"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("pretrain_bert.py: error:")]
    assert len(ours) == 1, done.stderr
    assert "--tensor-model-parallel-size 2" in ours[0]
    assert "3 ranks" in ours[0]
    assert "exitcode: 2" in done.stderr.replace("exitcode  : 2", "exitcode: 2")


def test_one_process_exits_with_code_2() -> None:
    done = subprocess.run([sys.executable, "pretrain_gpt.py", "--depth-scheme", "x"], cwd=ROOT, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
