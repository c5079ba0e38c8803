"""pretrain_bert.py with one fault in it: FAULT="KIND RANK ITERATION", only once where FAULT_ONCE names a file to be.

Kinds: bug, an exception that no check raised; mistake, a UserError; hang in Python; stop by SIGSTOP; die by SIGKILL,
while the others come late to that iteration. RANK may be "all"; ITERATION 0 is before the ranks meet. When it happens
FAULT_LOG gets the time.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dslm_patches.errors import UserError
from pretrain_bert import main


def bug() -> None:
    """What Python says of a slip in the code."""
    _first, _second = (1, 2, 3)  # type: ignore[misc]


def mistake() -> None:
    """What a check says."""
    raise UserError("--data-path: one rank's own mistake")


_KINDS: dict[str, Callable[[], Any]] = {
    "bug": bug,
    "mistake": mistake,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(1000),
}
_LATE_SECONDS = 0.9
"""Just less than a rank takes from one look at another to the next."""


def put_fault() -> None:
    """Makes this rank's start or training step go wrong when it is its turn."""
    from megatron.dslm.faults.watchdog import Watchdog
    from megatron.dslm.training import launch
    from megatron.dslm.training.step import Trainer

    kind, rank, iteration = os.environ["FAULT"].split()
    start, step, begin, count = launch.initialize, Trainer.step, Watchdog.step, 0

    def fail_if_due() -> None:
        once = os.environ.get("FAULT_ONCE")
        if rank in (os.environ["RANK"], "all") and count == int(iteration) and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            Path(os.environ["FAULT_LOG"]).write_text(str(time.time()))
            _KINDS[kind]()

    def faulty_start(*args: Any) -> Any:
        fail_if_due()
        return start(*args)

    def faulty_step(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        fail_if_due()
        return step(self, *args, **kwargs)

    def late_begin(self: Watchdog, number: int) -> None:
        if kind == "die" and os.environ["RANK"] != rank and count == int(iteration) - 1:
            time.sleep(_LATE_SECONDS)
        begin(self, number)

    launch.initialize = faulty_start
    Trainer.step = faulty_step  # type: ignore[method-assign]
    Watchdog.step = late_begin  # type: ignore[method-assign]


if __name__ == "__main__":
    put_fault()
    main()
