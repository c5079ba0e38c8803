"""Vocabularies laid out as BERT's and GPT-2's are published give the ids that transformers gives with them."""

import itertools
import json
import random
import string
from pathlib import Path

import pytest

from megatron.dslm.data.tokenizer import build_tokenizer
from megatron.dslm.data.vocab_training import train_bpe
from tests.data.test_tokenizer import STRANGE, TEXTS

# Special tokens written out are special to transformers alone.
TEXTS_OF_BOTH = [*TEXTS, *(text for text in STRANGE if "[SEP]" not in text)]


def drawn(draw: random.Random, alphabet: str) -> str:
    return "".join(draw.choices(alphabet, k=draw.randint(2, 7)))


def write_bert(path: Path, extra: str, size: int) -> None:
    """[PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103, [unusedN] elsewhere below 999, then characters."""
    unused = (f"[unused{number}]" for number in itertools.count())
    tokens = ["[PAD]", *itertools.islice(unused, 99), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += itertools.islice(unused, 895)
    characters = [*string.punctuation, *string.digits, *string.ascii_lowercase, *extra]
    words = [word for text in TEXTS for word in text.split() if word.isalpha() and word.isascii()]
    draw = random.Random(0)
    letters = string.ascii_lowercase
    pieces = (draw.choice(("", "##")) + drawn(draw, letters) for _ in itertools.count())
    whole = itertools.chain(tokens, characters, (f"##{one}" for one in characters), words, pieces)
    tokens = list(itertools.islice(dict.fromkeys(itertools.islice(whole, 2 * size)), size))
    assert (tokens.index("[UNK]"), tokens.index("!"), len(tokens)) == (100, 999, size)
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


@pytest.mark.parametrize(
    ("tokenizer_type", "extra", "size"),
    [
        ("BertWordPieceLowerCase", "東京αβγδсловаéß°", 30_522),
        ("BertWordPieceCase", string.ascii_uppercase + "東éñüÅ", 28_996),
    ],
)
def test_bert(tmp_path: Path, tokenizer_type: str, extra: str, size: int) -> None:
    from transformers import BertTokenizer

    write_bert(tmp_path / "vocab.txt", extra, size)
    ours = build_tokenizer(tokenizer_type, str(tmp_path / "vocab.txt"))
    theirs = BertTokenizer.from_pretrained(tmp_path, do_lower_case=tokenizer_type == "BertWordPieceLowerCase")
    assert (ours.vocab_size, ours.pad, ours.cls, ours.sep, ours.mask) == (size, 0, 101, 102, 103)
    assert theirs.get_vocab() == ours.vocab
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS_OF_BOTH]
    assert ours.tokenize_batch(TEXTS_OF_BOTH) == expected
    assert sum(index != 100 for ids in expected for index in ids) > 200, "hardly a word is known"


def test_gpt2(tmp_path: Path) -> None:
    """256 bytes, printable ones first, 50,000 merges in the order of their ids, and <|endoftext|> 50256."""
    from transformers import GPT2Tokenizer

    train_bpe(lambda: iter(TEXTS * 3), 700, tmp_path / "trained.json", tmp_path / "trained.txt")
    trained = [tuple(line.split(" ")) for line in (tmp_path / "trained.txt").read_text().splitlines()[1:]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    tokens = [*map(chr, printable), *(chr(256 + number) for number in range(256 - len(printable)))]
    draw = random.Random(0)
    known, merges = set(tokens), []
    for left, right in itertools.chain(
        trained, ((draw.choice(tokens), draw.choice(tokens)) for _ in itertools.count())
    ):
        if left + right not in known and len(left + right) <= 12:
            merges.append(f"{left} {right}")
            tokens.append(left + right)
            known.add(left + right)
        if len(merges) == 50_000:
            break
    tokens.append("<|endoftext|>")
    (tmp_path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    ours = build_tokenizer("GPT2BPETokenizer", str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    theirs = GPT2Tokenizer.from_pretrained(tmp_path)
    assert (ours.vocab_size, ours.eod, ours.vocab["!"], ours.vocab["Ġ"]) == (50_257, 50_256, 0, 220)
    assert theirs.get_vocab() == ours.vocab
    texts = [text for text in TEXTS_OF_BOTH if text]
    expected = [theirs(text)["input_ids"] for text in texts]
    assert ours.tokenize_batch(texts) == expected
    assert sum(index >= 256 for ids in expected for index in ids) > 100, "hardly a merge was used"
