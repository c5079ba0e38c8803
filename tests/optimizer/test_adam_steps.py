"""Counts of steps in the optimizer states that torch's Adam and Transformer Engine's leave in checkpoints."""

import copy
from types import SimpleNamespace
from typing import Any

import torch

from megatron.dslm.optimizer.adam_steps import translate_steps

TORCH = SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=torch.optim.AdamW([torch.zeros(1)]))])


class GroupCountingAdam:
    """An Adam whose groups hold the count, as Transformer Engine's and Apex's do."""


OTHER = SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=GroupCountingAdam())])
MOMENTS = {0: {"exp_avg": 1.0}}


def translated(loaded: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    loaded = copy.deepcopy(loaded)
    translate_steps(loaded, optimizer)
    return loaded


def test_counts_go_where_the_optimizer_looks_for_them() -> None:
    of_torch = {"param_groups": [{"lr": 1.0}, {"lr": 2.0}], "state": {**MOMENTS, "common_step": torch.tensor(7.0)}}
    of_other = {"param_groups": [{"lr": 1.0, "step": 7}, {"lr": 2.0, "step": 7}], "state": dict(MOMENTS)}
    for whole in (lambda state: state, lambda state: {"optimizer": state, "fp32_from_fp16_params": []}):
        for saved in (of_torch, of_other):
            assert translated(whole(saved), TORCH) == whole(of_torch)
            assert translated(whole(saved), OTHER) == whole(of_other)
            assert type(translated(saved, OTHER)["param_groups"][0]["step"]) is int


def test_the_distributed_optimizer_has_them_with_its_groups() -> None:
    for count in (7, 7.0):
        saved = {"optimizer": {"param_groups": [{"step": count}]}, "param_state": {}}
        assert translated(saved, TORCH) == saved
        step = translated(saved, OTHER)["optimizer"]["param_groups"][0]["step"]
        assert (step, type(step)) == (7, int)


def test_a_state_before_the_first_step_has_none() -> None:
    saved = {"param_groups": [{"lr": 1.0}], "state": {}}
    assert translated(saved, TORCH) == translated(saved, OTHER) == saved
