"""Punkt's sentences by NLTK's model and to NLTK's letter, without asking NLTK about the ends that are plain.

NLTK builds token objects around every full stop, some 50 microseconds each. Punkt (Kiss and Strunk 2006) always breaks
after a question or exclamation mark, and after a word that is neither an abbreviation nor an initial nor begins a
collocation. The others are asked of NLTK, whose answer depends on the two words alone and is remembered.
"""

import re
import string
from collections.abc import Iterator
from typing import Any

_MOST_REMEMBERED = 1 << 17
_WHITESPACE = string.whitespace
_OPENING = '("[{'
"""What Punkt's word tokenizer splits off in front of a word."""


class FastPunkt:
    """The sentences of NLTK's PunktSentenceTokenizer.

    Args:
        tokenizer: NLTK's, with its parameters.
    """

    def __init__(self, tokenizer: Any) -> None:
        language, parameters = tokenizer._lang_vars, tokenizer._params
        self._ask = tokenizer.text_contains_sentbreak
        # As patterns of `re`: NLTK 3.10 wraps its own in time limits.
        self._find_ends = _plain(language.period_context_re()).finditer
        self._match_closing = _plain(language.re_boundary_realignment).match
        self._closing = frozenset(c for c in map(chr, range(0x2100)) if self._match_closing(c))
        self._special = parameters.abbrev_types | {first for first, _ in parameters.collocations}
        self._numbers_alike = not any(one[0].isdigit() for one in self._special if one)
        self._remembered: dict[str, bool] = {}

    def __call__(self, text: str) -> list[str]:
        """The sentences of a text; see NLTK's `tokenize`."""
        return [text[start:stop] for start, stop in self._realigned(text)]

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        begin = 0
        for end, following, is_break in self._ends(text):
            if is_break:
                yield begin, end
                begin = end if following < 0 else following
        yield begin, len(text.rstrip())

    def _ends(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Where a sentence may end, where the next word starts (-1 before punctuation), and whether it does end.

        Of ends in one word, the last counts; words are delimited as NLTK's `_match_potential_end_contexts` does.
        """
        spaces = [c for c in _WHITESPACE if c in text]
        only_blanks = spaces == [" "]
        start = stop = 0
        last: Any = None
        for match in self._find_ends(text):
            here = match.start()
            if only_blanks:
                space = text.rfind(" ", stop, here)
            else:
                space = max((text.rfind(c, stop, here) for c in spaces), default=-1)
            word = space + 1 if space > stop else start
            if last is not None and stop <= word:
                yield last.end(), last.start("next_tok"), self._breaks(text, start, stop, last)
            last, start, stop = match, word, here
        if last is not None:
            yield last.end(), last.start("next_tok"), self._breaks(text, start, stop, last)

    def _breaks(self, text: str, start: int, stop: int, match: Any) -> bool:
        if text[stop] != ".":
            return True  # an exclamation or question mark is a token of its own
        word = text[start:stop].lstrip(_OPENING)
        following = match["next_tok"]
        if following is None or following[0] != ".":  # else an ellipsis, its dots apart
            if word.isalpha() and len(word) > 1:
                if word.lower() not in self._special:
                    return True
            elif word.isascii() and word.isdigit() and self._numbers_alike:
                word = "1"  # Punkt knows one type of number
            else:
                word = text[start:stop]
        else:
            word = text[start:stop]
        context = word + text[stop] + match["after_tok"]
        answer = self._remembered.get(context)
        if answer is None:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            answer = self._remembered[context] = bool(self._ask(context))
        return answer

    def _realigned(self, text: str) -> Iterator[tuple[int, int]]:
        """Closing quotes and brackets belong to the sentence before them."""
        spans = self._spans(text)
        start, stop = next(spans)
        for next_start, next_stop in spans:
            closing = None
            if next_start < next_stop and text[next_start] in self._closing:
                closing = self._match_closing(text, next_start, next_stop)
            if closing is not None:
                yield start, next_start + len(closing.group().rstrip())
                start, stop = next_start + len(closing.group()), next_stop
            else:
                if start < stop:
                    yield start, stop
                start, stop = next_start, next_stop
        if start < stop:
            yield start, stop


def _plain(pattern: Any) -> re.Pattern[str]:
    return re.compile(pattern.pattern, pattern.flags)
