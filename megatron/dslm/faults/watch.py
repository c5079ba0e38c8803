"""A thread in each rank that ends the whole job when one of its ranks dies or hangs, and says which and where."""

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch

from megatron.dslm.faults.diagnosis import first_to_blame, is_gone, main_thread_place

_BEAT_SECONDS = 1.0
_SILENT_SECONDS = 15.0
"""A rank whose thread was not heard from for so long is stopped, or its machine is gone."""
_IDLE_SECONDS = 20.0
_IDLE_STEPS = 5
"""A run hangs when no rank got on for _IDLE_SECONDS, and for _IDLE_STEPS times its longest step."""
_ABORT = "abort"


class Watch:
    """Tells the other ranks that this one lives and how far it is, and listens to them.

    All of it goes through the store that the ranks met in, so it works while collectives are stuck. Rank r listens to
    rank r + 1, and rank 0 judges whether the run gets on.

    Args:
        program: name of the entry point, in front of what is said.
        store: a connection that the main thread, which may block it, does not use.

    Attributes:
        iteration: the step that is under way, 0 before the first.
    """

    def __init__(self, args: Namespace, program: str, store: torch.distributed.Store) -> None:
        self.iteration = 0
        self._rank, self._world, self._program = args.rank, args.world_size, program
        self._store = store
        self._beats, self._got_on, self._longest = 0, time.monotonic(), 0.0
        self._step_begun: float | None = None
        self._watched = False
        self._heard: dict[str, Any] | None = None
        self._heard_at = self._got_on
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._store.set(f"beat/{self._rank}", json.dumps(self._own_beat()))
        self._thread.start()

    def beat(self) -> None:
        """This rank got on."""
        self._beats += 1
        self._got_on = time.monotonic()

    def step(self, iteration: int) -> None:
        """A step begins; from the second one on the run is watched, for then it is known how long one takes."""
        self.beat()
        if self._step_begun is not None:
            self._longest = max(self._longest, self._got_on - self._step_begun)
            self._watched = True
        self._step_begun = self._got_on
        self.iteration = iteration

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What takes its time inside (a save, the end of a run) is no hang."""
        watched, self._watched = self._watched, False
        yield
        self.beat()
        self._step_begun = None
        self._watched = watched

    def rest(self) -> None:
        """Training is over: what follows may take its time."""
        self._watched = False

    def stop(self) -> None:
        """This rank ends in good order."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):
            self._store.set(f"beat/{self._rank}", json.dumps(None))

    def failed(self, cause: str) -> bool:
        """Tells all ranks why this one cannot go on; whether it is the first to tell, and so the one to say it."""
        line = f"{self._program}: rank {self._rank}, iteration {self.iteration}: {cause}"
        with contextlib.suppress(RuntimeError):
            if self._store.compare_set(_ABORT, "", line).decode() != line:
                return False
        _say(line)
        return True

    def lost_connection(self) -> None:
        """A collective broke, so another rank is gone or failed: waits until it is known which, and says it once."""
        deadline = time.monotonic() + _SILENT_SECONDS
        while time.monotonic() < deadline and not self._told():
            for rank, beat in self._all_beats().items():
                if rank != self._rank and is_gone(beat["host"], beat["pid"]):
                    self._declare(rank, beat, "its process died")
                    return
            time.sleep(_BEAT_SECONDS / 4)
        if not self._told():
            self.failed("the connection to another rank broke")

    def _listen(self) -> None:
        failures, last = 0, time.monotonic()
        while not self._ended.wait(_BEAT_SECONDS):
            if time.monotonic() - last > 3 * _BEAT_SECONDS:
                # This process itself was stopped, the laptop asleep: nobody is to blame.
                self._heard_at = self._got_on = time.monotonic()
            last = time.monotonic()
            try:
                self._store.set(f"beat/{self._rank}", json.dumps(self._own_beat()))
                if self._told() and not self._ended.wait(_BEAT_SECONDS):
                    self._leave(self._store.get(_ABORT).decode())
                self._listen_to((self._rank + 1) % self._world)
                if self._rank == 0 and self._is_idle() and not self._told():
                    self._judge()
                failures = 0
            except RuntimeError as error:  # the store is torchrun's, or rank 0's
                failures += 1
                if failures == 3 and not self._ended.is_set():
                    _say(f"{self._program}: rank {self._rank}, iteration {self.iteration}: no contact to the others")
                    self._leave(str(error))

    def _listen_to(self, rank: int) -> None:
        beat = self._beat_of(rank)
        if beat != self._heard:
            self._heard, self._heard_at = beat, time.monotonic()
        if beat is None:
            return  # not there yet, or gone in good order
        if is_gone(beat["host"], beat["pid"]):
            self._declare(rank, beat, "its process died")
        elif time.monotonic() - self._heard_at > _SILENT_SECONDS:
            self._declare(rank, beat, f"not heard from for {_SILENT_SECONDS:.0f} s: stopped or cut off")

    def _own_beat(self) -> dict[str, Any]:
        idle = time.monotonic() - self._got_on
        waits, place = main_thread_place() if idle > _IDLE_SECONDS / 2 else (False, "")
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "iteration": self.iteration,
            "beats": self._beats,
            "time": time.time(),
            "waits": waits,
            "place": place,
        }

    def _is_idle(self) -> bool:
        limit = max(_IDLE_SECONDS, _IDLE_STEPS * self._longest)
        return self._watched and time.monotonic() - self._got_on > limit

    def _judge(self) -> None:
        time.sleep(_BEAT_SECONDS)  # until all have told where they are
        if self._is_idle():
            rank, beat = first_to_blame(self._all_beats())
            self._declare(rank, beat, f"hangs in {beat['place'] or 'an unknown place'}")

    def _declare(self, rank: int, beat: dict[str, Any], what: str) -> None:
        """Ends the job on account of a rank, unless that was done already."""
        # The ranks step together, and what it told last may be a second old.
        line = f"{self._program}: rank {rank}, iteration {max(beat['iteration'], self.iteration)}: {what}"
        told = json.dumps({"host": beat["host"], "pid": beat["pid"], "rank": rank, "by": secrets.token_hex(8)})
        if self._store.compare_set(_ABORT, "", told).decode() == told:
            _say(line)

    def _leave(self, told: str) -> None:
        """Ends this process, and on this machine the one to blame, which may be stopped and unable to."""
        with contextlib.suppress(ValueError, KeyError, OSError):
            blamed = json.loads(told)
            if blamed["rank"] != self._rank and blamed["host"] == socket.gethostname():
                os.kill(blamed["pid"], signal.SIGKILL)
        sys.stdout.flush()
        os._exit(1)

    def _told(self) -> bool:
        return bool(self._store.check([_ABORT]))

    def _beat_of(self, rank: int) -> dict[str, Any] | None:
        key = f"beat/{rank}"
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def _all_beats(self) -> dict[int, dict[str, Any]]:
        beats = {rank: self._beat_of(rank) for rank in range(self._world)}
        return {rank: beat for rank, beat in beats.items() if beat is not None}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
