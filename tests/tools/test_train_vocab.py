"""Trained vocabularies load, are of the format asked for, and come out the same every time."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron.dslm.data.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "low lower lowest new newer newest wide wider widest slow slower slowest Ångström"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [{"text": SENTENCE[4 * (i % 2) :], "title": "Zebra crossing zebra"} for i in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_wordpiece(tool: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "out" / "bert"
    flags = ["--input", corpus, "--tokenizer-type", "BertWordPieceLowerCase", "--output-prefix", prefix]
    result = tool("train_vocab", *flags, "--vocab-size", 60)
    assert result.exit_code == 0, result
    tokens = Path(f"{prefix}-vocab.txt").read_text().splitlines()
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(tokens) == len(set(tokens)) == 60
    assert not any(token != token.lower() for token in tokens[5:])
    tokenizer = build_tokenizer("BertWordPieceLowerCase", f"{prefix}-vocab.txt")
    ids = tokenizer.tokenize("lowest WIDEST angstrom slowlow")
    assert tokenizer.vocab["[UNK]"] not in ids
    assert tokenizer.detokenize(ids) == "lowest widest angstrom slowlow"
    # characters the corpus does not have
    assert tokenizer.tokenize("xyz") == [tokenizer.vocab["[UNK]"]]

    before = Path(f"{prefix}-vocab.txt").read_bytes()
    again = tool("train_vocab", *flags, "--vocab-size", 50)
    assert (again.exit_code, Path(f"{prefix}-vocab.txt").read_bytes()) == (0, before)
    assert "already there" in again.stdout


def test_bpe(tool: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "gpt"
    flags = ["--input", corpus, "--tokenizer-type", "GPT2BPETokenizer", "--output-prefix", prefix]
    assert tool("train_vocab", *flags, "--vocab-size", 280).exit_code == 0
    vocab = json.loads(Path(f"{prefix}-vocab.json").read_text())
    assert len(vocab) == 280
    assert vocab["<|endoftext|>"] == 279
    assert Path(f"{prefix}-merges.txt").read_text().count("\n") == 280 - 257 + 1
    tokenizer = build_tokenizer("GPT2BPETokenizer", f"{prefix}-vocab.json", f"{prefix}-merges.txt")
    text = " lowest\n東京 unseen"
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == text
    assert len(tokenizer.tokenize("lowest lower")) < len("lowest lower")


def test_json_keys_and_small_corpus(tool: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    flags = [
        "--input",
        corpus,
        "--tokenizer-type",
        "BertWordPieceCase",
        "--output-prefix",
        tmp_path / "title",
    ]
    result = tool("train_vocab", *flags, "--json-keys", "title", "--vocab-size", 5000)
    assert result.exit_code == 0
    assert "fewer than --vocab-size 5000" in result.stdout
    tokens = (tmp_path / "title-vocab.txt").read_text().splitlines()
    assert "Zebra" in tokens
    assert "lower" not in tokens


def test_the_same_text_gives_the_same_vocabulary(tmp_path: Path) -> None:
    """In fresh processes: the trainer's hash maps are seeded anew in each."""
    code = """
import random, sys
from pathlib import Path
from megatron.dslm.data.vocab_training import train_bpe, train_wordpiece
generator = random.Random(0)
letters = "abcdefghijklmnopqrstuvwxyzäöüß東京"
words = ["".join(generator.choices(letters, k=generator.randint(1, 6))) for _ in range(2000)]
texts = lambda: iter([" ".join(words)] * 2)
folder = Path(sys.argv[1])
folder.mkdir()
train_wordpiece(texts, 700, True, folder / "vocab.txt")
train_bpe(texts, 700, folder / "vocab.json", folder / "merges.txt")
"""
    for run in ("0", "1", "2"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / run)], check=True, cwd=ROOT)
    for name in ("vocab.txt", "vocab.json", "merges.txt"):
        assert len({(tmp_path / run / name).read_bytes() for run in ("0", "1", "2")}) == 1, name


def test_errors(tool: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    prefix = ["--output-prefix", tmp_path / "v"]
    wordpiece = ["--tokenizer-type", "BertWordPieceLowerCase"]
    tool("train_vocab", "--input", corpus, *wordpiece, *prefix, "--vocab-size", 30).assert_user_error("--vocab-size 30")
    tool(
        "train_vocab", "--input", corpus, "--tokenizer-type", "GPT2BPETokenizer", *prefix, "--vocab-size", 257
    ).assert_user_error("--vocab-size 257")
    tool("train_vocab", "--input", tmp_path / "none*", *wordpiece, *prefix).assert_user_error("--input", "none*")
    tool("train_vocab", "--input", corpus, *wordpiece).assert_user_error("--output-prefix")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": \n')
    for tokenizer_type in ("BertWordPieceLowerCase", "GPT2BPETokenizer"):
        flags = ["--input", bad, "--tokenizer-type", tokenizer_type, *prefix, "--vocab-size", 300]
        tool("train_vocab", *flags).assert_user_error(f"{bad}:2", "not valid JSON")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "corpus.jsonl"]
