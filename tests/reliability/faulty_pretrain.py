"""pretrain_bert.py with one fault in it: FAULT="KIND RANK ITERATION", only once where FAULT_ONCE names a file to be.

Kinds: raise an error; mistake, a UserError of one rank; hang in Python; stop by SIGSTOP; die by SIGKILL, while the
others come late to that iteration. When it happens FAULT_LOG gets the time.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dslm_patches.errors import UserError
from pretrain_bert import main

_KINDS: dict[str, Callable[[], Any]] = {
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(1000),
}
_LATE_SECONDS = 0.9
"""Just less than a rank takes from one look at another to the next."""


def put_fault() -> None:
    """Makes this rank's training step go wrong when it is its turn."""
    from megatron.dslm.faults.watch import Watch
    from megatron.dslm.training.step import Trainer

    kind, rank, iteration = os.environ["FAULT"].split()
    step, begin, count = Trainer.step, Watch.step, 0

    def faulty_step(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        once = os.environ.get("FAULT_ONCE")
        if os.environ["RANK"] == rank and count == int(iteration) and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            Path(os.environ["FAULT_LOG"]).write_text(str(time.time()))
            if kind == "raise":
                raise RuntimeError("the test's own fault\nwith a second line")
            if kind == "mistake":
                raise UserError("--data-path: one rank's own mistake")
            _KINDS[kind]()
        return step(self, *args, **kwargs)

    def late_begin(self: Watch, number: int) -> None:
        if kind == "die" and os.environ["RANK"] != rank and count == int(iteration) - 1:
            time.sleep(_LATE_SECONDS)
        begin(self, number)

    Trainer.step = faulty_step  # type: ignore[method-assign]
    Watch.step = late_begin  # type: ignore[method-assign]


if __name__ == "__main__":
    put_fault()
    main()
