"""Shows where a prediction leaves the theory's domain: one line a kind of warning, however many layers have it."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBER = re.compile(r"\d[\d.]*(e[+-]?\d+)?")


@contextmanager
def one_line_each(program: str) -> Iterator[None]:
    """Collects OutsideTheoryWarnings and prints them at the end; other warnings pass.

    Warnings that differ in their numbers alone are one kind: the first is shown, with the count of the others.
    """
    from dslm_patches.theory.moments import OutsideTheoryWarning

    kinds: dict[str, list[str]] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OutsideTheoryWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, OutsideTheoryWarning):
            text = str(warning.message)
            kinds.setdefault(_NUMBER.sub("#", text), []).append(text)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for texts in kinds.values():
        others = len(texts) - 1
        more = f" (and {others} more of the kind)" if others else ""
        print(f"{program}: warning: outside the theory's domain: {texts[0]}{more}", file=sys.stderr)
