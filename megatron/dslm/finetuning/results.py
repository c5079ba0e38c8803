"""What a fine-tuning run leaves beside its checkpoints: metrics.json, predictions and GLUE's submission."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dslm_patches.files import write_aside
from megatron.dslm.tasks.base import Example, Task


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    _write(path, json.dumps(content, indent=1) + "\n")


def write_predictions(
    path: Path, task: Task, sets: Sequence[tuple[str, Sequence[Example], NDArray[np.float64]]]
) -> None:
    """One JSON object a sample: data set, id, group if it has one, label, prediction, and of a class the logits.

    Args:
        sets: name, examples and logits [samples, classes, 1 or choices] of each data set.
    """
    lines = []
    for name, examples, logits in sets:
        for example, prediction, row in zip(examples, task.predictions(logits), logits, strict=True):
            line: dict[str, Any] = {"data": name, "id": example.id}
            if example.group:
                line["group"] = example.group
            line["label"] = _named(task, example.label)
            line["prediction"] = _named(task, float(prediction))
            if not task.regression:
                line["logits"] = [round(float(value), 6) for value in row]
            lines.append(json.dumps(line))
    _write(path, "\n".join(lines) + "\n")


def write_submission(
    folder: Path, source: str, task: Task, examples: Sequence[Example], logits: NDArray[np.float64]
) -> Path | None:
    """GLUE's submission file for the test file `source`; None for a task without one."""
    if task.submission is None:
        return None
    path = folder / task.submission(source)
    predictions = map(float, task.predictions(logits))
    rows = [f"{one.id}\t{task.submitted(value)}" for one, value in zip(examples, predictions, strict=True)]
    _write(path, "\n".join(["index\tprediction", *rows]) + "\n")
    return path


def data_names(paths: Sequence[str]) -> list[str]:
    """A short name for each data path, all different: dev_matched for MNLI/dev_matched.tsv."""
    names = [Path(os.path.normpath(path)).name.removesuffix(".tsv") for path in paths]
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return names


def _named(task: Task, value: float | None) -> str | float | None:
    if value is None or task.regression:
        return value
    return task.labels[int(value)]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, text)
