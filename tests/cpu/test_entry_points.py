"""What an entry point says and takes of the machine: warnings once and by one rank, threads as the summary tells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.dslm.checkpoints.manifest import check_digests, read_manifest
from tests.corpus import ROOT, data_flags
from tests.ports import free_port

MODEL = ["--num-layers", "4", "--hidden-size", "16", "--num-attention-heads", "2", "--seq-length", "16", "--dslm"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--lr", "1e-3", "--train-iters", "2"]
RECOMPUTED = ["--recompute-granularity", "selective"]
"""Of which megatron-core warns."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def start(words: list[str], **environment: str) -> subprocess.Popen[str]:
    """A Python process without a GPU and without a word on threads."""
    base = {name: value for name, value in os.environ.items() if name not in (*THREADS, "PYTHONWARNINGS")}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**base, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process that ends well wrote on both streams."""
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out, err


@pytest.mark.parametrize("model", ["bert", pytest.param("gpt", marks=pytest.mark.slow)])
def test_two_ranks_warn_once_and_take_a_thread_each(corpus: None, tmp_path: Path, model: str) -> None:
    flags = [*MODEL, *TRAINING, *RECOMPUTED, *data_flags(model), "--tensor-model-parallel-size", "2"]
    flags += ["--save", str(tmp_path / "save"), "--eval-iters", "1"]
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        start([f"pretrain_{model}.py", *flags], RANK=rank, LOCAL_RANK=rank, **meeting)  # without torchrun
        for rank in ("0", "1")
    ]
    try:
        (summary, warned), (_, silent) = [ended(one) for one in ranks]
    finally:
        for one in ranks:  # one that waits for the other
            one.kill()
    assert "runs on: CPU, 1 threads a rank" in summary
    first, *rest = warned.splitlines()
    assert "UserWarning: If you are using transformer_engine" in first
    assert [line.strip() for line in rest] == ["warnings.warn("], "one warning, and the line that raised it"
    assert silent == ""


@pytest.mark.slow
def test_threads_are_limited_where_nobody_said_how_many() -> None:
    program = """
import torch
from megatron.dslm.distributed.initialize import limit_threads
torch.set_num_threads(3)
limit_threads(1)
alone = torch.get_num_threads()
limit_threads(2)
print(alone, torch.get_num_threads())
"""
    assert ended(start(["-c", program]))[0] == "3 1\n"
    kept = "import torch\nfrom megatron.dslm.distributed.initialize import limit_threads\nlimit_threads(2)\n"
    code = f"{kept}print(torch.get_num_threads())"
    assert ended(start(["-c", code], OMP_NUM_THREADS="2"))[0] == "2\n"


LIBRARIES = """
import logging, warnings
from megatron.dslm.distributed.libraries import prepare_libraries
prepare_libraries()
import megatron.core.models.gpt, megatron.core.optimizer
exec("def odd(): warnings.warn('odd loss')", vars(megatron.core.optimizer))
log = logging.getLogger("megatron.core.optimizer")
for _ in range(2):
    megatron.core.optimizer.odd()
    with warnings.catch_warnings():  # Python then forgets what was shown
        megatron.core.optimizer.odd()
    log.warning("odd gradient")
    log.info("nothing")
log.error("lost")
"""


@pytest.mark.parametrize(("rank", "odd"), [("0", 1), ("1", 0)])
def test_megatron_core_is_heard_once_by_the_first_rank(rank: str, odd: int) -> None:
    _, output = ended(start(["-c", LIBRARIES], RANK=rank))
    counts = {text: output.count(text) for text in ("UserWarning: odd loss", "odd gradient", "lost")}
    assert counts == {"UserWarning: odd loss": odd, "odd gradient": odd, "lost": 1}
    assert "nothing" not in output
    assert "not installed" not in output


LINUX_ONLY = ("memfd_create", "sched_getaffinity", "sched_setaffinity", "pidfd_open", "eventfd", "splice")
"""Of the module os: a Mac has none of them."""


@pytest.mark.slow
def test_a_run_asks_for_nothing_that_a_mac_lacks(corpus: None, tmp_path: Path) -> None:
    argv = ["pretrain_gpt.py", *MODEL, *TRAINING, *data_flags("gpt"), "--eval-iters", "0"]
    argv += ["--save", str(tmp_path / "save"), "--save-interval", "1", "--async-save"]
    program = f"""
import os, runpy, sys
for name in {LINUX_ONLY}:
    vars(os).pop(name, None)
sys.argv = {argv}
runpy.run_path("pretrain_gpt.py", run_name="__main__")
"""
    ended(start(["-c", program]))
    folders = sorted(one.name for one in (tmp_path / "save").glob("iter_*"))
    assert folders == ["iter_0000001", "iter_0000002"]
    for folder in folders:
        assert check_digests(str(tmp_path / "save" / folder), read_manifest(str(tmp_path / "save" / folder))) is None
