"""Leaving in good order on SIGTERM or SIGUSR1, as a scheduler sends before it takes the machine."""

import signal
from types import FrameType

import torch

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StoppedEarly(Exception):
    """A signal asked the run to leave where there is nothing of it to save yet."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"{signal.Signals(number).name} received {where}")
        self.code = 128 + number


class StopRequest:
    """Whether some rank was asked to leave, which all ranks learn at the same step.

    They learn it by one number a step, reduced in the background while the next step runs: nobody waits for it.
    """

    def __init__(self) -> None:
        self._received = 0
        self._world = torch.distributed.get_world_size()
        self._group = torch.distributed.new_group(backend="gloo") if self._world > 1 else None
        self._number = torch.zeros(1, dtype=torch.int64)
        self._under_way: torch.distributed.Work | None = None
        self._before = {one: signal.signal(one, self._receive) for one in _SIGNALS}

    def agreed(self) -> int:
        """The signal that a rank had received at the last call, on all ranks alike; 0 for none. Once a step."""
        if self._group is None:
            return self._received
        agreed = 0
        if self._under_way is not None:
            self._under_way.wait()
            agreed = int(self._number)
        self._number = torch.tensor([self._received])
        self._under_way = torch.distributed.all_reduce(
            self._number, op=torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        return agreed

    def leave_if_asked(self, where: str) -> None:
        """For one rank alone, before the first step.

        Raises:
            StoppedEarly: this rank received a signal.
        """
        if self._received:
            raise StoppedEarly(self._received, where)

    def close(self) -> None:
        """Takes the handlers off again."""
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
