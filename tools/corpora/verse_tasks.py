"""Three classification tasks from verses in two renderings.

paraphrase  whether a World English verse renders this King James verse
relation    the same verse, the next one or a random one
four_way    which of four World English verses renders this King James verse

A wrong verse stands within 25 verses of the right one and shares many words with the King James verse. It comes from
the same split.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dslm_patches.errors import UserError
from tools.corpora.verses import Verse

WINDOW = 25
NUM_CLOSEST = 5
WORDS = range(4, 61)
"""How many words a verse must have, in both renderings."""
ARTICLE_WORDS = 80
NUM_RELATIONS = 3
"""The same verse, the next verse, a random verse."""


class Pair(NamedTuple):
    """A King James verse and a World English one with their relation: a number into the task's labels."""

    kjv: Verse
    web: Verse
    label: int


class Question(NamedTuple):
    """A King James verse, and four verses of which number `answer` is the same one."""

    verse: Verse
    options: list[Verse]
    answer: int


class Passage(NamedTuple):
    """King James verses that follow each other, and questions on some of them."""

    verses: list[Verse]
    questions: list[Question]


def word_set(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", text.lower()))


def overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared words as a part of all words, from 0 to 1."""
    return len(first & second) / max(1, len(first | second))


def place(verse: Verse) -> str:
    """A verse's name in ids and file names: letters, digits and underscores."""
    return f"{re.sub('[^a-z0-9]+', '_', verse.book.lower())}_{verse.chapter:03}_{verse.verse:03}"


class VerseTasks:
    """The rows of a split. `verses` are those of both splits, in the Bible's order.

    The same verses and seed give the same rows.
    """

    def __init__(self, verses: Sequence[Verse], split: str, seed: int) -> None:
        self.verses = verses
        self.split = split
        self.seed = seed
        self._kjv = [word_set(verse.kjv) for verse in verses]
        self._web = [word_set(verse.web) for verse in verses]
        self._usable = [i for i, verse in enumerate(verses) if verse.split == split and _fits(verse)]
        usable = set(self._usable)
        closest = {i: self._find_closest(i, usable) for i in self._usable}
        # three are needed for four options; a short chapter may not have them
        self._closest = {i: found for i, found in closest.items() if len(found) >= 3}

    def _find_closest(self, i: int, usable: set[int]) -> list[int]:
        """The verses nearby that share most words with King James' verse i; no two of them, nor verse i, read alike."""
        verse = self.verses[i]
        scored = []
        for j in range(max(0, i - WINDOW), min(len(self.verses), i + WINDOW + 1)):
            other = self.verses[j]
            # a formula may recur word for word: it would be right as well
            same = self._web[j] == self._web[i] or self._kjv[j] == self._kjv[i]
            if j in usable and other.book == verse.book and not same:
                scored.append((-overlap(self._kjv[i], self._web[j]), j))
        distinct: dict[str, int] = {}
        for _, j in sorted(scored):
            distinct.setdefault(self.verses[j].web, j)
        return list(distinct.values())[:NUM_CLOSEST]

    def _random(self, task: str) -> random.Random:
        return random.Random(f"{self.seed}:{task}:{self.split}")

    def paraphrase(self) -> list[Pair]:
        """Two rows a verse: with itself (1), and with one of the five closest others (0)."""
        rng = self._random("paraphrase")
        pairs = []
        for i, closest in self._closest.items():
            pairs.append(Pair(self.verses[i], self.verses[i], 1))
            pairs.append(Pair(self.verses[i], self.verses[rng.choice(closest)], 0))
        rng.shuffle(pairs)
        return pairs

    def relation(self) -> list[Pair]:
        """A row a verse that has a next one in its chapter, the labels as often as each other."""
        rng = self._random("relation")
        firsts = [i for i in self._usable[:-1] if self._is_next(i, i + 1)]
        rng.shuffle(firsts)
        pairs = []
        for number, i in enumerate(firsts):
            label = number % NUM_RELATIONS
            other = (i, i + 1, self._far_from(i, rng))[label]
            pairs.append(Pair(self.verses[i], self.verses[other], label))
        rng.shuffle(pairs)
        return pairs

    def _is_next(self, i: int, j: int) -> bool:
        first, second = self.verses[i], self.verses[j]
        return first[:2] == second[:2] and second.verse == first.verse + 1 and _fits(second)

    def _far_from(self, i: int, rng: random.Random) -> int:
        far = next((j for _ in range(1000) if abs((j := rng.choice(self._usable)) - i) > WINDOW), None)
        if far is None:
            raise UserError(f"{self.split}: too few verses to find one more than {WINDOW} away")
        return far

    def four_way(self) -> list[Passage]:
        """Passages with a question for each of their verses, in the Bible's order."""
        rng = self._random("four_way")
        passages = []
        for numbers in self._passages():
            questions = []
            for i in numbers:
                if i in self._closest:
                    options = [i, *self._closest[i][:3]]
                    rng.shuffle(options)
                    chosen = [self.verses[j] for j in options]
                    questions.append(Question(self.verses[i], chosen, options.index(i)))
            if questions:
                passages.append(Passage([self.verses[i] for i in numbers], questions))
        return passages

    def _passages(self) -> Iterator[list[int]]:
        """Verses of a chapter that follow each other, up to ARTICLE_WORDS words."""
        numbers: list[int] = []
        num_words = 0
        for i, verse in enumerate(self.verses):
            if verse.split != self.split:
                continue
            words = len(verse.kjv.split())
            if numbers and (self.verses[numbers[-1]][:2] != verse[:2] or num_words + words > ARTICLE_WORDS):
                yield numbers
                numbers, num_words = [], 0
            numbers.append(i)
            num_words += words
        if numbers:
            yield numbers


def _fits(verse: Verse) -> bool:
    return len(verse.kjv.split()) in WORDS and len(verse.web.split()) in WORDS
