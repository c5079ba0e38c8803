"""RACE: four-way multiple choice about an article (www.cs.cmu.edu/~glai1/data/race)."""

import json
import os
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.tasks.base import Example, Task
from megatron.dslm.tasks.metrics import accuracy

_ANSWERS = ("A", "B", "C", "D")
_LEVELS = ("middle", "high")
_BLANK = "_"


def read_race(path: str) -> tuple[list[Example], list[str]]:
    """The questions of a split's folder (with middle/ and high/), or of one of the two.

    The texts of an answer are the article and the question with the answer: in the question's blank ("_"), or behind
    it.

    Raises:
        UserError: no such folder, no files in it, or a file of another form.
    """
    if not os.path.isdir(path):
        raise UserError(f"{path} is not a folder of RACE's .txt files, or of middle/ and high/")
    levels = [(level, os.path.join(path, level)) for level in _LEVELS if os.path.isdir(os.path.join(path, level))]
    if not levels:
        name = os.path.basename(os.path.normpath(path))
        levels = [(name if name in _LEVELS else "", path)]
    examples: list[Example] = []
    for level, folder in levels:
        for name in sorted(os.listdir(folder), key=_numeric):
            if name.endswith(".txt"):
                examples += _questions(os.path.join(folder, name), level)
    if not examples:
        raise UserError(f"{path} holds no .txt files with questions")
    return examples, []


def _numeric(name: str) -> tuple[int, str]:
    stem = name.removesuffix(".txt")
    return (int(stem), name) if stem.isdigit() else (0, name)


def _questions(path: str, level: str) -> list[Example]:
    passage = _load(path)
    article = " ".join(passage["article"].split())
    examples = []
    labels = passage.get("answers") or [None] * len(passage["questions"])
    for number, (question, options, answer) in enumerate(
        zip(passage["questions"], passage["options"], labels, strict=True)
    ):
        if len(options) != len(_ANSWERS):
            raise UserError(f"{path}: question {number} has {len(options)} options, not {len(_ANSWERS)}")
        if answer is not None and answer not in _ANSWERS:
            raise UserError(f"{path}: the answer {answer!r} of question {number} is none of {', '.join(_ANSWERS)}")
        label = None if answer is None else float(_ANSWERS.index(answer))
        texts = tuple((article, _asked(question, option)) for option in options)
        examples.append(Example(f"{passage.get('id', os.path.basename(path))}-{number}", texts, label, level))
    return examples


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            passage = json.load(file)
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    keys = list(passage) if isinstance(passage, dict) else []
    missing = [key for key in ("article", "questions", "options") if key not in keys]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)}; found {', '.join(keys)[:200] or type(passage).__name__}")
    if not isinstance(passage["article"], str) or not _are_texts(passage):
        raise UserError(f"{path}: expected a text as article, and lists of texts as questions and options")
    lengths = {len(passage["questions"]), len(passage["options"])} | {len(passage.get("answers") or passage["options"])}
    if len(lengths) > 1:
        raise UserError(f"{path}: questions, options and answers are not equally many")
    return passage


def _are_texts(passage: dict[str, Any]) -> bool:
    questions, options = passage["questions"], passage["options"]
    if not isinstance(questions, list) or not isinstance(options, list):
        return False
    lists = [questions, *options]
    return all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)


def _asked(question: str, option: str) -> str:
    asked = question.replace(_BLANK, option, 1) if _BLANK in question else f"{question} {option}"
    return " ".join(asked.split())


RACE = Task("RACE", read_race, _ANSWERS, {"accuracy": accuracy}, choices=len(_ANSWERS), cut_first_only=True)
