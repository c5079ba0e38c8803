"""Runs that tell what their optimizer, schedule and model had in the end."""

import os
import signal
import threading
import time
from typing import Any
from unittest import mock

from megatron.core import tensor_parallel
from megatron.core.utils import get_model_config

from megatron.dslm.models.bert.samples import BertSamples
from megatron.dslm.training.step import Trainer
from tests.training import pretrain_workers

_SHOWN = ("betas", "eps", "max_lr", "min_lr", "lr", "weight_decay", "wd_mult")


def run(argv: list[str]) -> tuple[int, str, dict[str, Any]]:
    """Exit code and output of a pretraining of a BERT, and what it had at its last step; {} without one."""
    state: dict[str, Any] = {}
    step = Trainer.step

    def watched(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if not state:
            states = tensor_parallel.get_cuda_rng_tracker().get_states()
            state["random_states"] = {name: one.tolist() for name, one in states.items()}
        result = step(self, *args, **kwargs)
        state["groups"] = [{name: group[name] for name in _SHOWN} for group in self.optimizer.param_groups]
        state["clip_grad"] = self.optimizer.config.clip_grad
        state["schedule_steps"] = self.scheduler.num_steps
        state["consumed_samples"] = self.consumed_samples
        state["hidden_dropout"] = get_model_config(self.chunks[0]).hidden_dropout
        return result

    with mock.patch.object(Trainer, "step", watched):
        code, output = pretrain_workers.run(argv, "bert")
    return code, output, state


def run_with_an_endless_index(argv: list[str], rank: int = 0) -> tuple[int, str, float]:
    """(exit code, output, seconds from SIGTERM to the end) of a run that is ended while its index is built.

    Args:
        rank: that gets the signal.
    """
    sent = 0.0

    def end() -> None:
        nonlocal sent
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    def endless(*_args: Any) -> Any:
        time.sleep(600)

    timer = threading.Timer(3.0 if int(os.environ["RANK"]) == rank else 1000.0, end)
    timer.start()
    try:
        with mock.patch.object(BertSamples, "_one_epoch", endless):
            code, output = pretrain_workers.run(argv, "bert")
    finally:
        timer.cancel()
    return code, output, time.monotonic() - sent
