"""torch's Adam in megatron-core's distributed optimizer, where neither Transformer Engine nor Apex brings another."""

import importlib
from typing import Any

import torch

from dslm_patches.cpu.replacing import replace_all

_done: list[bool] = []


def resume_distributed_adam() -> tuple[str, ...]:
    """Without Apex or Transformer Engine, on CPU or a GPU, the distributed optimizer runs torch's AdamW, and its step
    counts break resuming three times: `state_dict`, which loading calls first, expects a count that a new AdamW does
    not have; setting a parameter's state expects one that the checkpoint does not hold for each parameter; and
    `load_state_dict` gives all parameters one tensor, which AdamW then counts up once for each of them. Calling this
    again does nothing."""
    if _done:
        return ()
    cls = importlib.import_module("megatron.core.optimizer.distrib_optimizer").DistributedOptimizer
    original_state_dict, original_load = cls.state_dict, cls.load_state_dict
    original_set = cls._set_main_param_and_optimizer_states

    def state_dict(self: Any) -> dict[str, Any]:
        if not self.optimizer.state:
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    zeros = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                    self.optimizer.state[p] = {"step": torch.zeros((), device=p.device), **zeros}
        return original_state_dict(self)

    def load_state_dict(self: Any, loaded: dict[str, Any]) -> None:
        original_load(self, loaded)
        for state in self.optimizer.state.values():
            state["step"] = state["step"].clone()

    def set_states(self: Any, model_param: Any, tensors: dict[str, torch.Tensor]) -> None:
        group, index = self.model_param_group_index_map[model_param]
        main_param = self.optimizer.param_groups[group]["params"][index]
        original_set(self, model_param, {"step": self.optimizer.state[main_param]["step"], **tensors})

    _done.append(True)
    name = f"{cls.__module__}.{cls.__name__}"
    return replace_all(
        {
            f"{name}.state_dict": state_dict,
            f"{name}.load_state_dict": load_state_dict,
            f"{name}._set_main_param_and_optimizer_states": set_states,
        }
    )
