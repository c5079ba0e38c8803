"""Finds out which rank is to blame, and where in the code it is."""

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

_WAITING = (
    "torch/distributed/",
    "megatron/core/pipeline_parallel/p2p_communication.py",
    "megatron/core/distributed/param_and_grad_buffer.py",
)
"""Code in which a rank waits for another one."""


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


def is_gone(host: str, pid: int) -> bool:
    """Whether a process of this machine has ended; False of another machine's, which cannot be seen from here."""
    if host != socket.gethostname():
        return False
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error only tells that another rank went away."""
    if isinstance(error, torch_errors()):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in told for part in ("connection", "peer", "socket", "nccl"))


def torch_errors() -> tuple[type[BaseException], ...]:
    """torch's own errors of communication."""
    from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

    return DistBackendError, DistNetworkError, DistStoreError
