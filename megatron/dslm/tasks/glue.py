"""GLUE's tasks in the files they are published in (gluebenchmark.com)."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from dslm_patches.errors import UserError
from megatron.dslm.tasks.base import Example, Task
from megatron.dslm.tasks.metrics import accuracy, f1, matthews, pearson, spearman
from megatron.dslm.tasks.tsv import Row, TsvFile

_UNLABELLED = "-"
"""MultiNLI's gold label where the annotators did not agree."""


@dataclass(frozen=True)
class _Reader:
    """Reads one task's files.

    Attributes:
        id: column of the id; the row's number, from 0, where a file does not have it.
        first, second: columns of the texts; second None for tasks about one sentence.
        label: column of the label; a file without it is a test file.
        classes: what the label column holds, by class number; empty for a score.
        headless: columns of training files that have no header line.
    """

    id: str
    first: str
    second: str | None
    label: str
    classes: tuple[str, ...]
    headless: tuple[str, ...] = ()

    def __call__(self, path: str) -> tuple[list[Example], list[str]]:
        file = TsvFile(path)
        if self.headless and self.first not in file.columns:
            file = TsvFile(path, self.headless)
            if next(TsvFile(path, self.headless).rows(), None) is None:
                raise UserError(f"{path}: expected a column {self.first}, or {len(self.headless)} columns")
        texts = [self.first] if self.second is None else [self.first, self.second]
        file.require(texts)
        examples: list[Example] = []
        undecided = 0
        for row in file.rows():
            label = self._label(path, row)
            undecided += self.label in row.fields and label is None
            second = None if self.second is None else row.fields[self.second]
            name = row.fields.get(self.id, str(len(examples)))
            examples.append(Example(name, ((row.fields[self.first], second),), label))
        if not examples:
            raise UserError(f"{path} holds no rows")
        notes = file.notes()
        if undecided:
            notes.append(f"{path}: {undecided} rows have the label {_UNLABELLED!r}: neither trained on nor scored")
        return examples, notes

    def _label(self, path: str, row: Row) -> float | None:
        text = row.fields.get(self.label)
        if text is None or text == _UNLABELLED:
            return None
        if self.classes:
            if text not in self.classes:
                raise UserError(f"{path} line {row.line}: {self.label} {text!r} is none of {', '.join(self.classes)}")
            return float(self.classes.index(text))
        try:
            score = float(text)
        except ValueError:
            score = -1.0
        if not 0.0 <= score <= 5.0:
            raise UserError(f"{path} line {row.line}: {self.label} {text!r} is not a score from 0 to 5")
        return score


def _mnli_submission(path: str) -> str:
    return "MNLI-mm.tsv" if "mismatched" in os.path.basename(path) else "MNLI-m.tsv"


def _named(name: str) -> Callable[[str], str]:
    return lambda path: name


def _class_name(classes: tuple[str, ...]) -> Callable[[float], str]:
    return lambda prediction: classes[int(prediction)]


def _score(prediction: float) -> str:
    return f"{min(max(prediction, 0.0), 5.0):.3f}"


_NLI = ("contradiction", "entailment", "neutral")
_ENTAILMENT = ("entailment", "not_entailment")
_BINARY = ("0", "1")
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_ACCURACY = {"accuracy": accuracy}
_ACCURACY_F1 = {"accuracy": accuracy, "f1": f1}
_STS = {"pearson": pearson, "spearman": spearman}

GLUE_TASKS = (
    Task(
        "MNLI",
        _Reader("index", "sentence1", "sentence2", "gold_label", _NLI),
        _NLI,
        _ACCURACY,
        submission=_mnli_submission,
        submitted=_class_name(_NLI),
    ),
    Task(
        "QQP",
        _Reader("id", "question1", "question2", "is_duplicate", _BINARY),
        _BINARY,
        _ACCURACY_F1,
        submission=_named("QQP.tsv"),
        submitted=_class_name(_BINARY),
    ),
    Task(
        "QNLI",
        _Reader("index", "question", "sentence", "label", _ENTAILMENT),
        _ENTAILMENT,
        _ACCURACY,
        submission=_named("QNLI.tsv"),
        submitted=_class_name(_ENTAILMENT),
    ),
    Task(
        "RTE",
        _Reader("index", "sentence1", "sentence2", "label", _ENTAILMENT),
        _ENTAILMENT,
        _ACCURACY,
        submission=_named("RTE.tsv"),
        submitted=_class_name(_ENTAILMENT),
    ),
    Task(
        "MRPC",
        _Reader("index", "#1 String", "#2 String", "Quality", _BINARY),
        _BINARY,
        _ACCURACY_F1,
        submission=_named("MRPC.tsv"),
        submitted=_class_name(_BINARY),
    ),
    Task(
        "SST-2",
        _Reader("index", "sentence", None, "label", _BINARY),
        _BINARY,
        _ACCURACY,
        submission=_named("SST-2.tsv"),
        submitted=_class_name(_BINARY),
    ),
    Task(
        "CoLA",
        _Reader("index", "sentence", None, "label", _BINARY, headless=_COLA_COLUMNS),
        _BINARY,
        {"matthews": matthews, "accuracy": accuracy},
        submission=_named("CoLA.tsv"),
        submitted=_class_name(_BINARY),
    ),
    Task(
        "STS-B",
        _Reader("index", "sentence1", "sentence2", "score", ()),
        (),
        _STS,
        submission=_named("STS-B.tsv"),
        submitted=_score,
    ),
)
