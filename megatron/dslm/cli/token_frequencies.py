"""Reads --token-frequencies: how often each token of a vocabulary occurs in the data."""

import math
from pathlib import Path

from dslm_patches.errors import UserError


def match_probability(path: Path, vocab_size: int) -> float:
    """The sum of squared token frequencies, the probability that two tokens of the data are the same.

    Args:
        path: a text file with one count or frequency a line; empty lines are left out.
        vocab_size: the most tokens the file may have.

    Raises:
        UserError: no such file, a line that is not a number of at least 0, nothing above 0, or too many tokens.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"--token-frequencies {path}: {error.strerror}") from None
    frequencies = [_frequency(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not any(frequencies):
        raise UserError(f"--token-frequencies {path}: no token has a frequency above 0")
    if len(frequencies) > vocab_size:
        raise UserError(
            f"--token-frequencies {path} has {len(frequencies)} tokens, more than --vocab-size {vocab_size}"
        )
    total = math.fsum(frequencies)
    return math.fsum((frequency / total) ** 2 for frequency in frequencies)


def _frequency(path: Path, number: int, line: str) -> float:
    try:
        frequency = float(line)
    except ValueError:
        frequency = math.nan
    if not 0.0 <= frequency < math.inf:
        raise UserError(f"--token-frequencies {path}, line {number}: {line[:40]!r} is not a count or frequency")
    return frequency
