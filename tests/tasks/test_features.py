"""Texts as token ids: what is kept when a sequence is too long."""

import pytest

from megatron.dslm.tasks import Example
from megatron.dslm.tasks.features import check_lengths, encode, encode_example


class Characters:
    """A tokenizer of one token a character."""

    cls, sep, pad = 1000, 1001, 0

    def tokenize(self, text: str) -> list[int]:
        return [ord(one) for one in text]

    def tokenize_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.tokenize(text) for text in texts]


def packed(first: str, second: str | None, length: int, *, cut_first_only: bool = False) -> tuple[str, str]:
    """The sequence with [CLS] as < and [SEP] as |, and its segments."""
    ids, types = encode(Characters(), first, second, length, cut_first_only=cut_first_only)
    return "".join({1000: "<", 1001: "|"}.get(one) or chr(one) for one in ids), "".join(map(str, types))


@pytest.mark.parametrize(
    ("first", "second", "length", "expected"),
    [
        ("abc", "de", 8, ("<abc|de|", "00000111")),
        ("abcdef", "xy", 8, ("<abc|xy|", "00000111")),
        ("ab", "uvwxyz", 8, ("<ab|uvw|", "00001111")),
        ("abcdef", "uvwxyz", 8, ("<abc|uv|", "00000111")),
        ("abcdef", "uvwxyz", 9, ("<abc|uvw|", "000001111")),
        ("", "uv", 9, ("<|uv|", "00111")),
        ("abcdef", None, 5, ("<abc|", "00000")),
    ],
)
def test_the_longer_text_is_cut(first: str, second: str | None, length: int, expected: tuple[str, str]) -> None:
    assert packed(first, second, length) == expected


def test_cutting_one_token_at_a_time_gives_the_same() -> None:
    for a in range(8):
        for b in range(8):
            left = [a, b]
            while sum(left) > 7:
                left[0 if left[0] > left[1] else 1] -= 1
            assert packed("a" * a, "b" * b, 10)[0] == f"<{'a' * left[0]}|{'b' * left[1]}|"


def test_question_and_option_are_never_cut() -> None:
    assert packed("article", "q opt", 10, cut_first_only=True) == ("<ar|q opt|", "0000111111")
    assert packed("article", "q option", 11, cut_first_only=True)[0] == "<|q option|"
    example = Example("high1.txt-0", (("article", "short"), ("article", "q option")), 0.0)
    check_lengths(Characters(), [example], 11)
    assert [len(ids) for ids, _ in encode_example(Characters(), example, 11, cut_first_only=True)] == [11, 11]
    with pytest.raises(ValueError, match=r"--seq-length 10 is too short.*high1\.txt-0.*8 tokens.*give 11"):
        check_lengths(Characters(), [example], 10)
