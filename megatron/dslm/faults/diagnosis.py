"""Finds out which rank is to blame, where in the code it is, and whether its process still lives."""

import contextlib
import os
import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

_WAITING = (
    "torch/distributed/",
    "torch/autograd/graph.py",
    "torch/cuda/",
    "megatron/core/pipeline_parallel/p2p_communication.py",
    "megatron/core/distributed/param_and_grad_buffer.py",
    "megatron/core/optimizer/clip_grads.py",
    "megatron/dslm/faults/stop.py",
)
"""Code in which a rank waits for another one, or for a device that does."""

_LOST_BY_GLOO = re.compile(
    r"gloo/transport/.*(Connection (closed by peer|reset by peer|refused|timed out)|Broken pipe|Socket closed"
    r"|Timed out waiting \d+ms for|Application timeout caused pair closure|No route to host|Network is unreachable)",
    re.DOTALL,
)
"""A RuntimeError of torch's, whose text begins with the file of gloo that threw it."""
_LOST_BY_NCCL = re.compile(
    r"remote process exited|ncclSystemError|Connection (closed|reset|refused|timed out)|Broken pipe"
    r"|communicator was aborted|caught collective operation timeout"
)
"""A DistBackendError: by NCCL's code, or by its last error, for it tells a lost peer as an internal error too."""
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory")


class OtherRankError(RuntimeError):
    """Another rank failed, and says itself why."""


def own_identity() -> dict[str, Any]:
    """What tells this process from all others: its machine, as far as processes can be seen, its number and age."""
    return {"machine": _machine(), "pid": os.getpid(), "born": psutil.Process().create_time()}


def main_thread_place() -> tuple[bool, str]:
    """(whether it waits there for another rank, the file, line and function) of the main thread, innermost first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return False, ""
    waits = any(part in frame.f_code.co_filename for part in _WAITING)
    path = Path(frame.f_code.co_filename)
    return waits, f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} ({frame.f_code.co_name})"


def first_to_blame(beats: dict[int, dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The rank that keeps the others waiting, and its beat: one that itself waits for nobody, and got least far."""
    return min(beats.items(), key=lambda item: (item[1]["waits"], item[1]["beats"], item[0]))


def is_here(identity: dict[str, Any]) -> bool:
    """Whether a process can be seen from here."""
    return bool(identity["machine"] == _machine())


def is_gone(identity: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended; False of another machine's, which cannot be seen from here."""
    return is_here(identity) and _status(identity) in (None, psutil.STATUS_ZOMBIE)


def is_stopped(identity: dict[str, Any]) -> bool:
    """Whether a process of this machine is stopped by a signal."""
    return is_here(identity) and _status(identity) in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error may only tell that another rank went away: by what torch's store, gloo and NCCL say then."""
    from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

    if isinstance(error, DistBackendError):
        return _LOST_BY_NCCL.search(str(error)) is not None
    if isinstance(error, (DistNetworkError, DistStoreError, OtherRankError)):
        return True
    return isinstance(error, RuntimeError) and _LOST_BY_GLOO.search(str(error)) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that there is no more memory, of the host or of a device."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def _status(identity: dict[str, Any]) -> str | None:
    try:
        process = psutil.Process(identity["pid"])
        return process.status() if abs(process.create_time() - identity["born"]) < 1.0 else None
    except psutil.NoSuchProcess:
        return None


def _machine() -> str:
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())
    return " ".join(parts)
