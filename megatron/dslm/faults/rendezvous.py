"""Where the ranks of one start of a job meet: a store whose keys no earlier start has written."""

import os
import secrets
import time
from argparse import Namespace
from datetime import timedelta

import torch


class Rendezvous:
    """The ranks of this start, each with the others.

    torchrun keeps one store over its restarts (--max-restarts) and torch puts no prefix before its keys, so a rank that
    comes back could take the addresses of ranks that are dead. Here rank 0 gives this start a name, and tells it to
    each rank that calls by a number of its own.

    Attributes:
        store: for `torch.distributed.init_process_group`.

    Raises:
        torch.distributed.DistStoreError: not all came within --distributed-timeout-minutes.
    """

    def __init__(self, args: Namespace) -> None:
        self._world, self._timeout = args.world_size, timedelta(minutes=args.distributed_timeout_minutes)
        self.store: torch.distributed.Store
        timeout = self._timeout
        if self._world == 1:
            # One process needs no rendezvous, so none of its ports.
            self._name, self.store = "", torch.distributed.HashStore()
            return
        shared = next(torch.distributed.rendezvous("env://", args.rank, self._world, timeout=timeout))[0]
        calls = torch.distributed.PrefixStore("dslm/meeting", shared)
        self._name = _invite(calls, self._world, timeout) if args.rank == 0 else _join(calls, args.rank, timeout)
        self.store = torch.distributed.PrefixStore(self._name, shared)

    def another_connection(self) -> torch.distributed.Store:
        """The same store by a connection of its own, for a thread that must not wait for the main one."""
        if self._world == 1:
            return torch.distributed.HashStore()
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        own = torch.distributed.TCPStore(*address, is_master=False, timeout=self._timeout)
        return torch.distributed.PrefixStore(f"{self._name}/watch", own)


def _invite(store: torch.distributed.Store, world: int, timeout: timedelta) -> str:
    """Rank 0's part: answers every call, those of earlier starts among them, until all ranks of this one came."""
    name = secrets.token_hex(8)
    away = set(range(1, world))
    deadline = time.monotonic() + timeout.total_seconds()
    while away:
        for rank in list(away):
            if store.check([f"call/{rank}"]):
                store.set(f"answer/{store.get(f'call/{rank}').decode()}", name)
            if store.check([f"here/{name}/{rank}"]):
                away.discard(rank)
        if time.monotonic() > deadline:
            raise torch.distributed.DistStoreError(f"ranks {sorted(away)} did not come within {timeout}")
        time.sleep(0.01)
    return name


def _join(store: torch.distributed.Store, rank: int, timeout: timedelta) -> str:
    number = secrets.token_hex(8)
    store.set(f"call/{rank}", number)
    store.wait([f"answer/{number}"], timeout)
    name = store.get(f"answer/{number}").decode()
    store.set(f"here/{name}/{rank}", "")
    return name
