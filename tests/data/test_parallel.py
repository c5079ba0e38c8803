"""The ordered map over processes, and outputs that are whole or not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron.dslm.data.parallel import ordered_map

ROOT = Path(__file__).resolve().parents[2]


def do_nothing() -> None:
    pass


def slow_if_even(number: int) -> int:
    time.sleep(0.02 if number % 2 == 0 else 0)
    return number * number


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_errors(workers: int) -> None:
    assert list(ordered_map(slow_if_even, range(20), workers, do_nothing)) == [n * n for n in range(20)]
    results = ordered_map(fail_at_five, range(10), workers, do_nothing)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_reads_only_a_little_ahead() -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = ordered_map(slow_if_even, numbers(), 2, do_nothing)
    for received in range(1, 30):
        next(results)
        assert taken <= received + 8
    results.close()


def test_killed_worker_is_reported() -> None:
    with pytest.raises(ChildProcessError, match="try fewer --workers"):
        list(ordered_map(die, range(3), 2, do_nothing))


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from megatron.dslm.data.parallel import ordered_map\n"
        "def start(): pass\n"
        "def work(n):\n    time.sleep(0.1)\n    return os.getpid()\n"
        "def items():\n    yield 0\n    yield 1\n    print('started', flush=True)\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n    for pid in ordered_map(work, items(), 2, start): print(pid)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)
    assert len(children) >= 2


def is_running(pid: int) -> bool:
    try:
        # the state is the first field after the name in brackets; Z has ended and waits for its parent
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
