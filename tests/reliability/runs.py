"""Small pretraining runs under torchrun, as the tests of faults start, stop and compare them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.corpus import ROOT, data_flags

SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32", "--dslm"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--lr", "1e-3"]
TP2 = ["--tensor-model-parallel-size", "2"]


def command(folder: Path, iterations: int, *extra: str) -> list[str]:
    """Flags of a run on real text, with dropout and traces, that saves, loads and logs under `folder`."""
    places = ["--save", f"{folder}/save", "--load", f"{folder}/save", "--tensorboard-dir", f"{folder}/board"]
    evaluation = [
        "--eval-interval",
        "7",
        "--eval-iters",
        "2",
        "--trace-interval",
        "4",
        "--train-iters",
        str(iterations),
    ]
    return [*SHAPE, *TRAINING, *evaluation, *places, *data_flags("bert"), *extra]


class Run:
    """torchrun with two ranks in a session of its own; its ranks lead sessions of theirs."""

    def __init__(
        self, argv: list[str], *, program: str = "pretrain_bert.py", torchrun: tuple[str, ...] = (), **environment: str
    ) -> None:
        # A file: a pipe that nobody reads would stop torchrun when it is full.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the run
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *torchrun]
        self.process = subprocess.Popen(
            [*words, program, *argv],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ROOT, **environment},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = set()

    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks that run now, by rank."""
        found = []
        for one in psutil.Process(self.process.pid).children():
            try:
                found.append((int(one.environ()["RANK"]), one))
            except (psutil.Error, KeyError):
                continue
        self._seen.update(one for _, one in found)
        return [one for _, one in sorted(found, key=lambda item: item[0])]

    def wait(self, seconds: float = 240.0) -> tuple[int, str]:
        """Exit code and output."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode, self.output()

    def output(self) -> str:
        """What torchrun and the ranks printed so far."""
        self._output.flush()
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def kill(self) -> None:
        """kill -9 of torchrun and all that it started."""
        for one in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            one.send_signal(signal.SIGKILL)
        self.process.wait()

    def left_over(self) -> list[psutil.Process]:
        """Ranks once seen that are still there."""
        return [one for one in self._seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def wait_for(path: Path, run: Run, seconds: float = 240.0) -> None:
    """Waits until a file is there; fails when the run ends before."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert run.process.poll() is None, run.output()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def can_mount(place: Path) -> bool:
    """Whether this machine lets a user have file systems of his own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(place)]).returncode == 0


def facts(output: str) -> list[str]:
    """The lines in which a rank says why the job ends."""
    return [line for line in output.splitlines() if line.startswith("pretrain_bert.py: ")]


def environment_of_fault(kind: str, rank: int | str, iteration: int, folder: Path, **more: Any) -> dict[str, str]:
    """What tests/reliability/faulty_pretrain.py reads."""
    return {"FAULT": f"{kind} {rank} {iteration}", "FAULT_LOG": f"{folder}/fault", **more}
