"""Writes the verse tasks in the layouts of QQP, MNLI and RACE, for whose readers they stand in."""

import json
from collections.abc import Sequence
from pathlib import Path

from tools.corpora.verse_tasks import Pair, Passage, place

RELATION_LABELS = ("entailment", "neutral", "contradiction")
"""MNLI's names for the same verse, the next verse and a random one. They are not entailment."""

QQP_COLUMNS = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
MNLI_COLUMNS = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"]
MNLI_COLUMNS += ["sentence1_parse", "sentence2_parse", "sentence1", "sentence2"]


def write_paraphrase(pairs: Sequence[Pair], path: Path) -> None:
    """QQP's layout."""
    rows = [
        [str(n), f"kjv_{place(p.kjv)}", f"web_{place(p.web)}", p.kjv.kjv, p.web.web, str(p.label)]
        for n, p in enumerate(pairs)
    ]
    _write_tsv([QQP_COLUMNS, *rows], path)


def write_relation(pairs: Sequence[Pair], path: Path, num_annotators: int) -> None:
    """MNLI's layout, whose train file has one annotator and whose dev file has five."""
    labels = [f"label{n}" for n in range(1, num_annotators + 1)]
    rows = [[*MNLI_COLUMNS, *labels, "gold_label"]]
    for number, pair in enumerate(pairs):
        label = RELATION_LABELS[pair.label]
        fields = [str(number), place(pair.kjv), f"{place(pair.kjv)}_{label[0]}", "verses", "-", "-", "-", "-"]
        rows.append([*fields, pair.kjv.kjv, pair.web.web, *[label] * num_annotators, label])
    _write_tsv(rows, path)


def _write_tsv(rows: Sequence[Sequence[str]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as output:
        for row in rows:
            output.write("\t".join(" ".join(field.split()) for field in row) + "\n")


def write_four_way(passages: Sequence[Passage], folder: Path) -> None:
    """RACE's layout: a JSON object a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for passage in passages:
        name = f"{place(passage.verses[0])}.txt"
        content = {
            "answers": ["ABCD"[question.answer] for question in passage.questions],
            "options": [[option.web for option in question.options] for question in passage.questions],
            "questions": [question.verse.kjv for question in passage.questions],
            "article": " ".join(verse.kjv for verse in passage.verses),
            "id": name,
        }
        (folder / name).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
