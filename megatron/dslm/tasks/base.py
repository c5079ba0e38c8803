"""What a task is: how its files are read, what is predicted, and how that is judged. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""(predictions, labels), one a sample: class numbers, or scores of a regression -> the metric."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sample of a task.

    Attributes:
        id: as the task's files name it.
        texts: the (first, second) texts of each choice; one pair unless the task is multiple choice. The second is
            None where the task is about one sentence.
        label: class number, score of a regression, or None where the file does not give it.
        group: part of the data set that is reported for itself (RACE's middle and high); "" for none.
    """

    id: str
    texts: tuple[tuple[str, str | None], ...]
    label: float | None
    group: str = ""


@dataclass(frozen=True)
class Task:
    """A fine-tuning task.

    Attributes:
        name: what --task takes.
        read: examples of a path, and lines about what was left out of it. Raises UserError for a file that is not
            the task's, without the flag.
        labels: names of the classes, by number; empty for a regression. For multiple choice, of the answers.
        metrics: by name; the first one chooses the best checkpoint.
        choices: texts that one sample chooses between; 1 unless the task is multiple choice.
        cut_first_only: a sequence that is too long loses words of the first text alone, not of the longer one.
        submission: name of GLUE's submission file for a test file, or None where the task has none.
        submitted: what the submission holds for a prediction.
    """

    name: str
    read: Callable[[str], tuple[list[Example], list[str]]]
    labels: tuple[str, ...]
    metrics: Mapping[str, Metric] = field(repr=False)
    choices: int = 1
    cut_first_only: bool = False
    submission: Callable[[str], str] | None = None
    submitted: Callable[[float], str] = str

    @property
    def regression(self) -> bool:
        """Whether a score is predicted, rather than a class."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for one sequence: classes, or one for a regression or a choice."""
        return 1 if self.regression or self.choices > 1 else len(self.labels)

    def predictions(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class numbers or scores [samples] of logits [samples, classes or 1 or choices]."""
        return logits[:, 0] if self.regression else logits.argmax(1).astype(np.float64)


def count_labels(examples: Sequence[Example]) -> int:
    """Examples that have a label."""
    return sum(example.label is not None for example in examples)
