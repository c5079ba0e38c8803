"""Small task files of real sentences: is the second one the same as the first, and which of four options is."""

import json
import random
import re
from pathlib import Path

from tests.corpus import FOLDER

VOCABULARY = ["--vocab-file", f"{FOLDER}/bert-vocab.txt"]


def sentences(count: int) -> list[str]:
    """Short sentences of the Wikipedia slice."""
    found: list[str] = []
    with open(FOLDER / "wikipedia.jsonl", encoding="utf-8") as file:
        for line in file:
            found += [one for one in re.split(r"[.\n]\s*", json.loads(line)["text"]) if 20 < len(one) < 90]
            if len(found) >= count:
                return found[:count]
    raise AssertionError(f"the slice has fewer than {count} sentences")


def write_qqp(path: Path, count: int, seed: int = 0) -> str:
    """Pairs in QQP's layout: a sentence with itself, or with another."""
    generator, texts = random.Random(seed), sentences(count)
    lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"]
    for number, text in enumerate(texts):
        same = generator.random() < 0.5
        other = text if same else generator.choice(texts)
        lines.append(f"{number}\t0\t0\t{text}\t{other}\t{int(same)}".replace("\r", " "))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def write_race(folder: Path, count: int, seed: int = 0) -> str:
    """Questions in RACE's layout: which option is the article?"""
    generator, texts = random.Random(seed), sentences(4 * count)
    for level in ("middle", "high"):
        (folder / level).mkdir(parents=True)
    for number in range(count):
        options = generator.sample(texts, 4)
        answer = generator.randrange(4)
        content = {
            "article": options[answer],
            "questions": ["What is said?"],
            "options": [options],
            "answers": ["ABCD"[answer]],
            "id": f"{number}.txt",
        }
        level = ("middle", "high")[number % 2]
        (folder / level / f"{number}.txt").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)
