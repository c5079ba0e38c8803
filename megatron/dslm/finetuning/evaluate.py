"""Predictions of a data set by all ranks, and the metrics of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from numpy.typing import NDArray

from megatron.dslm.finetuning.dataset import TaskDataset, evaluation_batches
from megatron.dslm.tasks.base import Example, Task
from megatron.dslm.training.step import Trainer

Logits = NDArray[np.float64]


def predict(trainer: Trainer, forward_step: Any, dataset: TaskDataset) -> Logits | None:
    """Logits [samples, classes, 1 or choices] of a data set, dropout off; None off the last pipeline stage.

    All ranks call it.
    """
    iterators = []
    for _ in trainer.chunks:
        iterator, batches = evaluation_batches(trainer.args, dataset)
        iterators.append(iterator)
    outputs = trainer.forward(iterators, batches, forward_step)
    if not parallel_state.is_pipeline_last_stage(ignore_virtual=True):
        return None
    own = [(out["index"].cpu().numpy(), out["logits"].double().cpu().numpy()) for out in outputs]
    gathered: list[Any] = [None] * parallel_state.get_data_parallel_world_size()
    torch.distributed.all_gather_object(gathered, own, group=parallel_state.get_data_parallel_group())
    logits = np.empty((len(dataset), own[0][1].shape[1]))
    for index, values in (batch for rank in gathered for batch in rank):
        logits[index] = values
    return logits


def measure(task: Task, examples: Sequence[Example], logits: Logits) -> dict[str, float]:
    """Metrics and loss over the labelled examples, if there are any; "group/metric" too where there are groups."""
    labelled = np.array([example.label is not None for example in examples])
    labels = np.array([example.label for example in examples if example.label is not None], dtype=np.float64)
    if not labels.size:
        return {}
    chosen = task.predictions(logits)[labelled]
    metrics = {name: metric(chosen, labels) for name, metric in task.metrics.items()}
    metrics["loss"] = _loss(task, logits[labelled], labels)
    groups = np.array([example.group for example in examples])[labelled]
    for group in sorted(set(groups) - {""}):
        inside = groups == group
        metrics |= {f"{group}/{name}": metric(chosen[inside], labels[inside]) for name, metric in task.metrics.items()}
    return metrics


def _loss(task: Task, logits: Logits, labels: NDArray[np.float64]) -> float:
    if task.regression:
        return float(np.mean((logits[:, 0] - labels) ** 2))
    top = logits.max(1, keepdims=True)
    normal = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return float(np.mean(normal - logits[np.arange(len(labels)), labels.astype(int)]))
