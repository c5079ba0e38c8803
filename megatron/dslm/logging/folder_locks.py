"""Two runs at once never write into the same folder: each locks what it writes to for as long as it lives."""

import fcntl
import os
import socket
import time
from argparse import Namespace
from pathlib import Path
from typing import IO

from dslm_patches.errors import UserError
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.logging.run_folder import FOLDERS

LOCK = ".run.lock"
_PATIENCE_SECONDS = 2.0
"""A run that is started again may meet the last moments of the one before."""
_LOOK_SECONDS = 0.1


class FolderLocks:
    """Holds a lock on --save (first rank) and on the folders of curves, traces and results (last rank).

    POSIX locks: of a process, not of those that it forks, and gone with it, however it ends. Shared disks have them
    where NFS's or the parallel file system's locking is on; where it is not, that is said, and nothing is locked.

    Raises:
        UserError: another process holds one; the flag, the folder and that process are named.
    """

    def __init__(self, args: Namespace) -> None:
        self._files: list[IO[str]] = []
        own: dict[str, str] = {}
        for name, folder in _written(args):
            own.setdefault(os.path.realpath(folder), name)
        for folder, name in own.items():
            self._hold(name, Path(folder))

    def release(self) -> None:
        """Lets go of all of them."""
        for file in self._files:
            file.close()

    def _hold(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  # held until the run ends
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)
                    continue
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise UserError(
                    f"{spelled(name)} {folder} is being written to by another run ({holder}): give another folder, or "
                    "end that run first"
                ) from None
            except OSError as error:
                print(f"warning: {spelled(name)} {folder} cannot be locked: {error.strerror}", flush=True)
                break
        self._files.append(file)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()


def _written(args: Namespace) -> list[tuple[str, str]]:
    """(argument, folder) that this rank writes to."""
    ours = [("save", args.save)] if args.rank == 0 else []
    if args.rank == args.world_size - 1:
        saved = None if args.save is None else os.path.realpath(args.save)
        rest = [(name, getattr(args, name, None)) for name in FOLDERS]
        # --output-dir is --save where it is not given.
        ours += [(name, one) for name, one in rest if one is not None and os.path.realpath(one) != saved]
    return [(name, folder) for name, folder in ours if folder is not None]
