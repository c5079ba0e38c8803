"""What failed is told as what it is: a lost peer, no memory, a read error, a bug with its traceback, once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron.dslm.faults.diagnosis import is_lost_connection
from tests.corpus import ROOT, data_flags
from tests.distributed.pool import RankPool
from tests.reliability.runs import SHAPE, TP2, TRAINING
from tests.reliability.test_unread import checkpoint

WORKERS = "tests.reliability.fault_workers"
PEERS_LOST = [
    # Seen with torch 2.13, one rank killed or late.
    RuntimeError("[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:47"),
    RuntimeError("[/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete"),
    RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Read error [::1]:47: Connection reset by peer"),
    RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:446] writev [::1]:47: Broken pipe"),
    RuntimeError("[../third_party/gloo/gloo/transport/tcp/buffer.cc:72] Application timeout caused pair closure"),
    torch.distributed.DistStoreError("wait timeout after 1000ms, keys: /default_pg/0//beat/1"),
    torch.distributed.DistNetworkError("failed to recv, got 0 bytes. Connection was likely closed."),
    # From reports to NVIDIA/nccl: issues 2076 and 1514.
    torch.distributed.DistBackendError(
        "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error, NCCL version 2.21.5\n"
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."
    ),
    torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:1275, internal error, NCCL version 2.14.3\nncclInternalError: Internal "
        "check failed.\nLast error:\nNet : Connection closed by remote peer user<50260>"
    ),
]
OTHER_ERRORS = [
    RuntimeError("CUDA error: peer access is not supported between these two devices"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("no connection between layer 3 and its residual"),
    RuntimeError("cannot find the socket of the NCCL plugin"),
    RuntimeError("[enforce fail at /w/third_party/gloo/gloo/transport/tcp/pair.cc:446] op.nbytes <= nbytes. 40 vs 32"),
    torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:1287, invalid usage, NCCL version 2.17.1\nncclInvalidUsage: This usually "
        "reflects invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA"
    ),
    torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:1331, unhandled cuda error\nncclUnhandledCudaError: Call to CUDA function "
        "failed.\nLast error:\nCuda failure 'peer access is not supported between these two devices'"
    ),
    ConnectionResetError(104, "Connection reset by peer"),
    ValueError("Connection closed by peer"),
]


@pytest.mark.parametrize("error", PEERS_LOST, ids=range(len(PEERS_LOST)))
def test_a_lost_peer_is_known(error: Exception) -> None:
    assert is_lost_connection(error)


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=range(len(OTHER_ERRORS)))
def test_other_errors_are_no_lost_peer(error: Exception) -> None:
    assert not is_lost_connection(error)


def test_gloo_says_it_so(ranks: RankPool) -> None:
    known, output = ranks.run(2, f"{WORKERS}:lose_rank_1")[0]
    assert known, output


def test_one_rank_that_cannot_read_stops_all(ranks: RankPool, tmp_path: Path) -> None:
    for number in (10, 20):
        checkpoint(tmp_path, number)
    outcomes = ranks.run(2, f"{WORKERS}:look_without_files", root=str(tmp_path))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].startswith(f"error: --load: {tmp_path}/iter_0000020/")
    assert "could not be read: Too many open files" in outcomes[0]
    assert ranks.run(1, f"{WORKERS}:look_without_files", root=str(tmp_path)) == [f"{tmp_path}/iter_0000020"]


def command(folder: Path, *extra: str) -> list[str]:
    """A run of two iterations that goes on from `folder`."""
    return [*SHAPE, *TRAINING, "--train-iters", "2", "--eval-iters", "0", *data_flags("bert"), *extra]


@pytest.fixture(scope="module")
def saved(ranks: RankPool, corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of iteration 1, of two ranks."""
    folder = tmp_path_factory.mktemp("saved")
    argv = command(folder, *TP2, "--save", str(folder), "--exit-interval", "1")
    assert ranks.run(2, "tests.training.pretrain_workers:run", process_group=False, argv=argv, model="bert")[-1][0] == 0
    return folder


@pytest.mark.parametrize(
    ("fault", "at", "code", "message"),
    [
        ("memory", [1], 1, "rank 1, iteration 0: RuntimeError: [enforce fail at alloc_cpu.cpp"),
        ("bug", [1], 1, "rank 1, iteration 0: ValueError: too many values to unpack"),
        ("bug", [0, 1], 1, "rank "),
        ("read error", [0], 2, "error: --load: {folder} cannot be read: [Errno 5] Input/output error"),
    ],
)
def test_what_stops_a_load_is_told_as_what_it_is(
    ranks: RankPool, saved: Path, fault: str, at: list[int], code: int, message: str
) -> None:
    call = {"place": "load", "fault": fault, "ranks": at}
    argv = command(saved, *TP2, "--load", str(saved))
    ended = ranks.run(2, f"{WORKERS}:run_with_a_fault", process_group=False, argv=argv, model="bert", **call)
    assert [one for one, _ in ended] == [code, code], ended
    output = "".join(printed for _, printed in ended)
    lines = [line for line in output.splitlines() if line.startswith("pretrain_bert.py: ")]
    assert len(lines) == 1, output
    assert lines[0].startswith(f"pretrain_bert.py: {message.format(folder=saved / 'iter_0000001')}"), output
    assert ("cannot be read" in output) == (code == 2)
    # torch tells of the place on the failing ranks inside its own error, which comes first.
    assert (f"in {'out_of_memory' if fault == 'memory' else fault}\n" in output) == (code == 1), output


def test_a_bug_on_one_rank_alone_keeps_its_traceback(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    call = {"place": "step", "fault": "bug", "ranks": [0]}
    argv = command(tmp_path)
    ((code, output),) = ranks.run(
        1, f"{WORKERS}:run_with_a_fault", process_group=False, argv=argv, model="bert", **call
    )
    assert code == 1, output
    assert output.count("Traceback (most recent call last)") == 1
    assert "fault_workers.py" in output
    assert output.splitlines()[-1].startswith("pretrain_bert.py: rank 0, iteration 1: ValueError: too many values")


@pytest.mark.parametrize("fault", ["leave", "leave with words"])
def test_a_library_that_leaves_from_a_step_is_a_bug(ranks: RankPool, corpus: None, tmp_path: Path, fault: str) -> None:
    call = {"place": "step", "fault": fault, "ranks": [0]}
    argv = command(tmp_path)
    ((code, output),) = ranks.run(
        1, f"{WORKERS}:run_with_a_fault", process_group=False, argv=argv, model="bert", **call
    )
    assert code == 1, output
    assert output.count("Traceback (most recent call last)") == 1
    assert output.splitlines()[-1].startswith("pretrain_bert.py: rank 0, iteration 1: SystemExit: ")


FAILING_DATA = """
from megatron.dslm.models.bert.samples import BertSamples

def bug(self, number):
    raise ZeroDivisionError("in the data")

BertSamples.__getitem__ = bug
import pretrain_bert
if __name__ == "__main__":
    pretrain_bert.main()
"""


def test_a_bug_in_a_data_loader_ends_the_run(corpus: None, tmp_path: Path) -> None:
    """Loaders ignore a scheduler's signals, and so those that Python sends them when it exits."""
    words = [sys.executable, "-c", FAILING_DATA, *command(tmp_path), "--num-workers", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("pretrain_bert.py: rank 0, iteration 1: ZeroDivisionError: ")


def test_ctrl_c_before_the_first_iteration_is_one_line() -> None:
    code = "from megatron.dslm.distributed import libraries; libraries.prepare_libraries(); raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert done.stderr.splitlines() == ["-c: interrupted"]


BUG = "def bug(*_, **__): a, b = (1, 2, 3)"
TOOLS = {
    "run_tool": "from megatron.dslm.data.command_line import run_tool; run_tool(bug)",
    "dslm": "from megatron.dslm.cli import main; main.approximations.compare = bug; main.main(['approximations'])",
    "convert_checkpoint": "import runpy, sys, megatron.dslm.conversion as conversion; conversion.to_megatron = bug; "
    "sys.argv = 'tool --from hf --to megatron --load a --save b'.split(); "
    "runpy.run_path('tools/convert_checkpoint.py', run_name='__main__')",
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_bug_in_a_tool_keeps_its_traceback(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{BUG}\n{TOOLS[name]}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: too many values to unpack")
