"""A thread in each rank that ends the whole job when one of its ranks dies or hangs, and says which and where."""

import contextlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch

from megatron.dslm.faults import diagnosis

_BEAT_SECONDS = 1.0
_SILENT_SECONDS = 15.0
"""A rank of another machine whose thread was not heard from for so long is cut off."""
_BUSY_SECONDS = 600.0
"""How long a rank that lives, or has not taken a step yet, may be silent: some C++ code holds Python for minutes."""
_IDLE_BEATS = 5
"""A run hangs when no rank got on for --hang-timeout-seconds, and for so many times the longest that it ever took."""
_GRACE_SECONDS = 5.0
"""What a rank has to end by itself once another one told why it cannot go on."""
_ENDING = "ending"


class Watchdog:
    """Tells the other ranks that this one lives and how far it is, and listens to them.

    All of it goes through the store that the ranks met in, so it works while collectives are stuck. Rank r listens to
    rank r + 1, and rank 0 judges whether the run gets on. Why the job ends is told once, by whoever knows it first.

    Args:
        program: name of the entry point, in front of what is said.
        store: a connection that the main thread, which may block it, does not use.

    Attributes:
        iteration: the step that is under way; before the first, where the run goes on from.
    """

    def __init__(self, args: Namespace, program: str, store: torch.distributed.Store) -> None:
        self.iteration = 0
        self._rank, self._world, self._program = args.rank, args.world_size, program
        self._limit = args.hang_timeout_seconds
        self._hosts_store = self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        self._store, self._me = store, diagnosis.own_identity()
        self._beats, self._steps, self._longest = 0, 0, 0.0
        self._got_on = self._heard_at = time.monotonic()
        self._heard: dict[str, Any] | None = None
        self._watched = False
        self._speaking, self._left = threading.Lock(), False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._store.set(f"beat/{self._rank}", json.dumps(self._own_beat()))
        self._thread.start()

    def beat(self) -> None:
        """This rank got on."""
        now = time.monotonic()
        if self._watched:
            self._longest = max(self._longest, now - self._got_on)
        self._beats += 1
        self._got_on = now

    def step(self, iteration: int) -> None:
        """A step begins; the run is watched from the second on, for the first one takes what later ones do not."""
        self.beat()
        self._steps += 1
        self._watched = self._steps > 1
        self.iteration = iteration

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What takes its time inside (a save) is no hang."""
        watched, self._watched = self._watched, False
        try:
            yield
        finally:
            self.beat()
            self._watched = watched

    def rest(self) -> None:
        """Training is over: what follows may take its time."""
        self._watched = False

    def stop(self, *, failed: bool) -> None:
        """This rank ends. Where it holds the store, it stays until the others have ended, or read why."""
        with contextlib.suppress(RuntimeError):
            with self._speaking:  # a beat that came after the farewell would look like a rank that died
                self._left = True
                self._store.set(f"beat/{self._rank}", json.dumps(None))
            deadline = time.monotonic() + (_GRACE_SECONDS if failed else _BUSY_SECONDS)
            while self._hosts_store and self._all_beats() and time.monotonic() < deadline:
                time.sleep(_BEAT_SECONDS / 10)
        self._ended.set()
        self._thread.join(timeout=_GRACE_SECONDS)

    def tell(self, line: str, code: int, *, speaker: int | None = None, trace: str = "") -> int:
        """Says why the job ends unless another rank has; the exit code that holds.

        Args:
            speaker: the rank that says what all ranks find at the same time; the others give it a moment.
            trace: lines to go before.
        """
        said = f"{trace}{self._program}: {line}"
        patience = time.monotonic() + (2 * _BEAT_SECONDS if speaker not in (None, self._rank) else 0.0)
        try:
            while time.monotonic() < patience and not self._is_ending():
                time.sleep(_BEAT_SECONDS / 10)
            return self._end(said, code)
        except RuntimeError:
            _say(said)
            return code

    def failed(self, cause: str, trace: str) -> int:
        """`tell` of a rank that alone cannot go on, with where it failed."""
        return self.tell(f"rank {self._rank}, iteration {self.iteration}: {cause}", 1, trace=trace)

    def lost_connection(self, cause: str, trace: str) -> int:
        """A collective broke, so another rank is gone or failed: waits until it is known which. The exit code."""
        deadline = time.monotonic() + _SILENT_SECONDS + 5 * _BEAT_SECONDS
        try:
            while time.monotonic() < deadline and not self._is_ending():
                for rank, beat in self._all_beats().items():
                    if rank != self._rank and diagnosis.is_gone(beat):
                        self._declare(rank, beat, "its process died")
                time.sleep(_BEAT_SECONDS / 4)
        except RuntimeError:
            return self.failed(f"lost contact to the store, which rank 0 or torchrun holds: {cause}", trace)
        return self.failed(f"lost contact to another rank: {cause}", trace)

    def _listen(self) -> None:
        failures = 0
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                with self._speaking:
                    if not self._left:
                        self._store.set(f"beat/{self._rank}", json.dumps(self._own_beat()))
                self._leave_if_ending()
                self._listen_to((self._rank + 1) % self._world)
                if self._rank == 0 and self._is_idle():
                    self._judge()
                failures = 0
            except RuntimeError:  # the store is torchrun's, or rank 0's
                failures += 1
                if failures == 3 and not self._ended.is_set():
                    _say(f"{self._program}: rank {self._rank}, iteration {self.iteration}: no contact to the store")
                    _exit(1)
            except Exception as error:  # a watchdog that fell asleep would look like a dead rank
                _say(f"{self._program}: warning: watchdog of rank {self._rank}: {error!r}")

    def _leave_if_ending(self) -> None:
        if not self._is_ending():
            return
        ending = json.loads(self._store.get(_ENDING))
        blamed = ending["blamed"]
        if self._ended.wait(_BEAT_SECONDS if blamed else _GRACE_SECONDS):
            return
        if blamed and blamed["pid"] != self._me["pid"] and not diagnosis.is_gone(blamed):
            with contextlib.suppress(OSError):
                if diagnosis.is_here(blamed):  # stopped, it cannot end itself
                    os.kill(blamed["pid"], signal.SIGKILL)
        _exit(ending["code"])

    def _listen_to(self, rank: int) -> None:
        beat = self._beat_of(rank)
        if beat != self._heard:
            self._heard, self._heard_at = beat, time.monotonic()
        if beat is None:
            return  # not there yet, or gone in good order
        silent = time.monotonic() - self._heard_at
        if diagnosis.is_gone(beat):
            time.sleep(2 * _BEAT_SECONDS)  # what it told last is old; by now this rank waits for it where it died
            self._declare(rank, beat, "its process died")
        elif silent > _SILENT_SECONDS:
            cut_off = diagnosis.is_stopped(beat) or (not diagnosis.is_here(beat) and self._steps > 1)
            if cut_off or silent > _BUSY_SECONDS:
                self._declare(rank, beat, f"not heard from for {silent:.0f} s: stopped or cut off")

    def _own_beat(self) -> dict[str, Any]:
        idle = time.monotonic() - self._got_on
        waits, place = diagnosis.main_thread_place() if idle > self._limit / 2 else (False, "")
        state = {"iteration": self.iteration, "beats": self._beats, "time": time.time(), "waits": waits, "place": place}
        return {**self._me, **state}

    def _is_idle(self) -> bool:
        if not self._watched or self._world == 1 or not self._limit:
            return False
        return time.monotonic() - self._got_on > max(self._limit, _IDLE_BEATS * self._longest)

    def _judge(self) -> None:
        time.sleep(_BEAT_SECONDS)  # until all have told where they are
        if self._is_idle():
            rank, beat = diagnosis.first_to_blame(self._all_beats())
            self._declare(rank, beat, f"hangs in {beat['place'] or 'an unknown place'}")

    def _declare(self, rank: int, beat: dict[str, Any], what: str) -> None:
        # The ranks step together, and what it told last may be a beat old.
        iteration = max(beat["iteration"], self.iteration)
        self._end(f"{self._program}: rank {rank}, iteration {iteration}: {what}", 1, blamed=beat)

    def _end(self, line: str, code: int, *, blamed: dict[str, Any] | None = None) -> int:
        own = json.dumps({"code": code, "blamed": blamed, "by": secrets.token_hex(8)})
        first = self._store.compare_set(_ENDING, "", own).decode()
        if first == own:
            _say(line)
        return int(json.loads(first)["code"])

    def _is_ending(self) -> bool:
        return bool(self._store.check([_ENDING]))

    def _beat_of(self, rank: int) -> dict[str, Any] | None:
        key = f"beat/{rank}"
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def _all_beats(self) -> dict[int, dict[str, Any]]:
        beats = {rank: self._beat_of(rank) for rank in range(self._world)}
        return {rank: beat for rank, beat in beats.items() if beat is not None}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _exit(code: int) -> None:
    sys.stdout.flush()
    os._exit(code)
