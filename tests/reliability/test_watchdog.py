"""What a rank's watchdog tells the others."""

import json
import threading
import time
from argparse import Namespace
from typing import Any

from torch.distributed import TCPStore

from megatron.dslm.faults.watchdog import Watchdog


class SlowWatch(Watchdog):
    """Takes its time to say that it lives."""

    beating = threading.Event()

    def _own_beat(self) -> dict[str, Any]:
        beat = super()._own_beat()
        self.beating.set()
        time.sleep(0.5)
        return beat


def test_no_beat_follows_a_ranks_farewell() -> None:
    """It would be that of a rank that died, or the host of the store would wait for it."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    watchdog = SlowWatch(Namespace(rank=1, world_size=2, hang_timeout_seconds=0), "pretrain_bert.py", store)
    SlowWatch.beating.clear()
    assert SlowWatch.beating.wait(10)
    watchdog.stop(failed=False)
    time.sleep(1)
    assert json.loads(store.get("beat/1")) is None
