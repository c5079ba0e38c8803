"""Adam's kernel and its count of steps, whichever library's Adam megatron-core found."""

from argparse import Namespace
from typing import Any

import torch

from megatron.dslm.models.mcore_config import uses_cpu_kernels
from megatron.dslm.optimizer.update import parts


def choose_kernel(args: Namespace, optimizer: Any) -> None:
    """Gives torch's Adam its fused kernel: one pass over the weights in place of eight. A loaded state brings its own
    choice along, so this is called again then.

    Args:
        optimizer: megatron-core's.
    """
    fused = True if uses_cpu_kernels(args) or torch.cuda.is_available() else None
    for one in _inner(optimizer):
        if not _is_torchs(one):
            continue
        for group in one.param_groups:
            if "fused" in group:
                group["fused"] = fused
        for parameter, state in one.state.items():
            if fused and "step" in state:
                state["step"] = state["step"].to(parameter.device)


def translate_steps(loaded: dict[str, Any], optimizer: Any) -> None:
    """Puts the count of steps where this run's Adam looks for it, into a state that another library's may have saved.

    torch's counts for each parameter, which megatron-core saves as one number beside their state; Transformer Engine's
    and Apex's count for each group. The distributed optimizer saves it with the groups in any case.

    Args:
        loaded: the optimizer's state as megatron-core's sharded checkpoint gives it; changed in place.
        optimizer: megatron-core's, which is about to load it.
    """
    inner = loaded.get("optimizer", loaded)
    groups, state = inner["param_groups"], inner.get("state")
    counts = [group["step"] for group in groups if "step" in group]
    if state is not None and "common_step" in state:
        counts = [state["common_step"]]
    if not counts:
        return
    if not all(map(_is_torchs, _inner(optimizer))):
        if state is not None:
            state.pop("common_step", None)
        for group in groups:
            group["step"] = int(counts[0])
    elif state is not None:
        state["common_step"] = torch.tensor(float(counts[0]))
        for group in groups:
            group.pop("step", None)


def _inner(optimizer: Any) -> list[Any]:
    return [one.optimizer for one in parts(optimizer)]


def _is_torchs(optimizer: Any) -> bool:
    return type(optimizer).__module__.startswith("torch.")
