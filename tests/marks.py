"""Marks of parametrized tests."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def slow_but(kept: Sequence[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases of a parametrized test, all but the kept ones left to scripts/test.sh --all."""
    cases = list(cases)
    assert all(one in cases for one in kept), "a case that there is not"
    return [
        one
        if one in kept
        else pytest.param(*(one if isinstance(one, (tuple, list)) else (one,)), marks=pytest.mark.slow)
        for one in cases
    ]
