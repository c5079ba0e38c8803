"""What runs in each process of the pool: take a call, set up process groups, run it, reset everything."""

import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import os
import pickle
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import coverage

SEED = 1234


@dataclass
class Call:
    """One function call on one rank; the fields are explained at `RankPool.run`."""

    function: str
    kwargs: dict[str, Any]
    rank: int
    world_size: int
    store_port: int
    layout: dict[str, Any] | None
    process_group: bool
    timeout: float
    measured: bool


@dataclass
class Reply:
    """What the function returned, or the traceback of what it raised."""

    result: Any = None
    error: str | None = None


def serve(connection: Connection, log_path: str, measured: bool) -> None:
    """Run calls until the parent sends None or is gone. Output goes to `log_path`.

    Args:
        measured: the lines that calls run, those that are to be measured, are kept beside what the parent measures
            itself, for it to combine.
    """
    os.setpgrp()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    measure = coverage.Coverage(data_suffix=True) if measured else None
    if measure is not None:
        measure.start()
    warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine).*")
    import torch

    from dslm_patches.cpu import install

    torch.set_num_threads(1)
    assert install(), "the pool hides CUDA from its ranks"
    if measure is not None:
        measure.stop()
    environment = dict(os.environ)
    connection.send_bytes(b"ready")
    for call in _calls(connection):
        with measure.collect() if measure is not None and call.measured else contextlib.nullcontext():
            reply = _run(call)
        connection.send_bytes(reply)
        os.environ.clear()
        os.environ.update(environment)
    if measure is not None:
        measure.save()


def _calls(connection: Connection) -> Iterator[Call]:
    while True:
        try:
            call = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        if call is None:
            return
        yield call


def _run(call: Call) -> bytes:
    """The pickled reply to a call."""
    try:
        set_up(call)
        # Plain pickle: multiprocessing's would hand tensors over in shared memory of a process that may die.
        reply = pickle.dumps(Reply(result=_find(call.function)(**call.kwargs)))
    except BaseException:  # also SystemExit, which a command line under test may raise
        reply = pickle.dumps(Reply(error=traceback.format_exc()))
    try:
        reset()
    except BaseException:
        reply = pickle.dumps(Reply(error=f"reset after the call failed\n{traceback.format_exc()}"))
    return reply


def _find(function: str) -> Callable:
    module_name, _, name = function.rpartition(":")
    if not module_name.endswith(".py"):
        return getattr(importlib.import_module(module_name), name)
    path = Path(module_name).resolve()
    if str(path) not in sys.modules:
        spec = importlib.util.spec_from_file_location(str(path), path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[str(path)] = module
        spec.loader.exec_module(module)
    return getattr(sys.modules[str(path)], name)


def set_up(call: Call) -> None:
    """Environment, process groups and seeds for a call."""
    import numpy
    import torch
    from megatron.core import parallel_state, tensor_parallel

    # As torchrun's agent does: it holds the store, so the ranks only connect to it.
    os.environ.update(
        RANK=str(call.rank),
        LOCAL_RANK=str(call.rank),
        WORLD_SIZE=str(call.world_size),
        LOCAL_WORLD_SIZE=str(call.world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(call.store_port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    random.seed(SEED)
    numpy.random.seed(SEED)
    torch.manual_seed(SEED)
    if call.process_group:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=call.timeout))
    if call.layout is not None:
        parallel_state.initialize_model_parallel(**call.layout)
        tensor_parallel.model_parallel_cuda_manual_seed(SEED)


def reset() -> None:
    """Undo everything global that a call may have set in torch and megatron-core."""
    import torch
    from megatron.core import num_microbatches_calculator, parallel_state, rerun_state_machine
    from megatron.core.distributed import DistributedDataParallel
    from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBuffer
    from megatron.core.optimizer import MegatronOptimizer
    from megatron.core.tensor_parallel import random as tensor_parallel_random

    # First let go of models and optimizers: their hooks hold process groups, whose threads cost time for ever.
    gc.unfreeze()  # a run that was cut short leaves its model frozen
    holders = (DistributedDataParallel, _ParamAndGradBuffer, MegatronOptimizer)
    for one in [one for one in gc.get_objects() if issubclass(type(one), holders)]:
        vars(one).clear()  # they hold each other in circles through C++, where no collector sees them
    gc.collect()
    parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    num_microbatches_calculator.destroy_num_microbatches_calculator()
    rerun_state_machine.destroy_rerun_state_machine()
    tensor_parallel_random._CUDA_RNG_STATE_TRACKER = None
    tensor_parallel_random._CUDA_RNG_STATE_TRACKER_INITIALIZED = False
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
