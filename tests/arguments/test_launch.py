"""A mistake under torchrun: every rank leaves at once, and the line is there once."""

import os
import subprocess
import sys
from pathlib import Path

from tests.ports import free_port
from tests.reliability.site import make_site, pretraining_flags, words

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


def test_a_file_that_a_second_machine_lacks_is_told_there(tmp_path: Path) -> None:
    """Two agents as two machines, of two ranks each: the folder that they start in is the disk of each."""
    machines = [tmp_path / "first", tmp_path / "second"]
    for folder in machines:
        folder.mkdir()
        make_site(folder)
    (machines[1] / "vocab.txt").unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    argv = [*torchrun, "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    program = [str(ROOT / "pretrain_bert.py"), *words(pretraining_flags(Path(".")))]
    first, second = (
        subprocess.Popen(
            [*argv, "--node-rank", str(number), *program],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(machines)
    )
    try:
        _, told = second.communicate(timeout=120)
    finally:
        first.terminate()  # its ranks wait for those that left
        _, told_on_first = first.communicate(timeout=60)
    lines = [line for line in told.splitlines() if line.startswith("pretrain_bert.py: error:")]
    assert len(lines) == 1, told
    assert "vocab.txt" in lines[0]
    assert "pretrain_bert.py: error:" not in told_on_first
