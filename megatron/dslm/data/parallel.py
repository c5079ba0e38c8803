"""An ordered map over worker processes that holds only a few items in memory."""

import collections
import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed out per worker: enough to keep it busy while the caller writes, few enough to bound memory.
_ITEMS_PER_WORKER = 4


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...] = (),
) -> Generator[Result, None, None]:
    """Yields `function(item)` in the order of `items`, computed by `workers` processes (in this one for 1).

    `multiprocessing.Pool.imap` reads its whole input ahead of a slow consumer, and waits for ever when a
    worker is killed. This holds a few items a worker, and raises `ChildProcessError` then. What `function`
    raises is raised here.
    """
    if workers == 1:
        initializer(*initargs)
        yield from map(function, items)
        return
    # spawn: forking a process that has threads (tqdm, tokenizers, torch) can deadlock
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (initializer, initargs)
    )
    pending: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= workers * _ITEMS_PER_WORKER:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ChildProcessError("a worker process was killed (out of memory?); try fewer --workers") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker(initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole process group; the parent alone answers it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    initializer(*initargs)


def _exit_with_parent() -> None:
    """Ends a worker whose parent was killed, which would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
