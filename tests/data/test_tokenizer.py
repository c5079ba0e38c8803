"""Tokenizers against straightforward reference implementations, and what megatron-core asks of them."""

# ruff: noqa: RUF001  (strange characters are the point)

import itertools
import json
import pickle
import random
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import regex

from megatron.dslm.data.tokenizer import Tokenizer, _sha256, build_tokenizer
from megatron.dslm.data.vocab_training import train_bpe, train_wordpiece

TEXTS = [
    "The quick brown fox jumps over the lazy dog; the dog's reply was unprintable, quickly and brownly.",
    "In 1905 Einstein, then twenty-six, published E = mc2 (and three other papers) in the Annalen.",
    "Café, naïve, Zürich, Ångström: accents are stripped by an uncased vocabulary, but not by a cased one!",
    "The word for 'east' is 東 and for 'capital' 京, so 東京 means eastern capital.",
    'Prices rose 3.5% to $4,200 -- "about right", they said... didn\'t they?',
    "Unaffected unbelievable unbreakable breakable affected affection believable believing beliefs.",
]
STRANGE = [
    "",
    " ",
    "\t tab\u00a0nbsp\u3000ideographic  two spaces\r\n",
    "zero\u200bwidth soft\u00adhyphen \x00control\x1c\x7f bell",
    "[SEP] [MASK] <|endoftext|> [PAD]",
    "e\u0301 combining after space: \u0301x",
    "İstanbul ẞ ﬁ Σίσυφος 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂🙂",
    "x" * 300 + " tail",
    "  leading and trailing   ",
    "we'll they've I'm it's he'd 'tis",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cased.txt, uncased.txt, vocab.json and merges.txt trained on TEXTS."""
    folder = tmp_path_factory.mktemp("vocab")
    train_wordpiece(lambda: iter(TEXTS * 3), 250, True, folder / "uncased.txt")
    train_wordpiece(lambda: iter(TEXTS * 3), 250, False, folder / "cased.txt")
    train_bpe(lambda: iter(TEXTS * 3), 400, folder / "vocab.json", folder / "merges.txt")
    return folder


@pytest.fixture(scope="module")
def bert(files: Path) -> Tokenizer:
    return build_tokenizer("BertWordPieceLowerCase", str(files / "uncased.txt"))


@pytest.fixture(scope="module")
def gpt2(files: Path) -> Tokenizer:
    return build_tokenizer("GPT2BPETokenizer", str(files / "vocab.json"), str(files / "merges.txt"))


def reference_words(text: str, lowercase: bool) -> list[str]:
    """BERT's basic tokenizer: clean, space out CJK, lower and strip accents, cut at punctuation."""
    cleaned = ""
    for character in text:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            cleaned += " "
        elif category in ("Cc", "Cf", "Co", "Cn") or character == "\ufffd":
            continue
        elif "\u4e00" <= character <= "\u9fff":
            cleaned += f" {character} "
        else:
            cleaned += character
    if lowercase:
        decomposed = unicodedata.normalize("NFD", cleaned)
        cleaned = "".join(c for c in decomposed if unicodedata.category(c) != "Mn").lower()
    words = []
    for word in cleaned.split():
        piece = ""
        for character in word:
            if unicodedata.category(character).startswith("P") or character in "$+<=>^`|~":
                words += [piece, character]
                piece = ""
            else:
                piece += character
        words.append(piece)
    return [word for word in words if word]


def reference_wordpiece(text: str, vocab: dict[str, int], lowercase: bool) -> list[int]:
    """Greedy longest match of each word, or [UNK]."""
    ids = []
    for word in reference_words(text, lowercase):
        pieces: list[int] = []
        start = 0
        while start < len(word) and len(word) <= 200:
            prefix = "##" if start else ""
            end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in vocab), None)
            if end is None:
                break
            pieces.append(vocab[prefix + word[start:end]])
            start = end
        ids += pieces if start == len(word) else [vocab["[UNK]"]]
    return ids


def reference_bpe(text: str, vocab: dict[str, int], ranks: dict[tuple[str, ...], int]) -> list[int]:
    """GPT-2's pattern and byte alphabet, then the merge of lowest rank until none is left."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    ids = []
    for word in regex.findall(pattern, text):
        pieces = [alphabet[byte] for byte in word.encode()]
        while len(pieces) > 1:
            pairs = list(itertools.pairwise(pieces))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            merged, i = [], 0
            while i < len(pieces):
                joins = tuple(pieces[i : i + 2]) == best
                merged.append("".join(best) if joins else pieces[i])
                i += 2 if joins else 1
            pieces = merged
        ids += [vocab[piece] for piece in pieces]
    return ids


@pytest.mark.parametrize("case", ["uncased", "cased"])
def test_wordpiece_equals_reference(files: Path, case: str) -> None:
    tokenizer_type = {"uncased": "BertWordPieceLowerCase", "cased": "BertWordPieceCase"}[case]
    tokenizer = build_tokenizer(tokenizer_type, str(files / f"{case}.txt"))
    texts = TEXTS + [text for text in STRANGE if "İ" not in text]  # its lower case differs between Unicode tables
    expected = [reference_wordpiece(text, tokenizer.vocab, case == "uncased") for text in texts]
    assert tokenizer.tokenize_batch(texts) == expected
    assert [tokenizer.tokenize(text) for text in texts] == expected
    # the vocabulary is too small for whole words: the reference must have been exercised
    assert any(tokenizer.inv_vocab[i].startswith("##") for ids in expected for i in ids)


def test_bpe_equals_reference(gpt2: Tokenizer, files: Path) -> None:
    lines = (files / "merges.txt").read_text().splitlines()[1:]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    expected = [reference_bpe(text, gpt2.vocab, ranks) for text in TEXTS + STRANGE]
    assert gpt2.tokenize_batch(TEXTS + STRANGE) == expected
    assert [gpt2.detokenize(ids) for ids in expected] == TEXTS + STRANGE


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_cached_pieces_give_what_the_backend_gives(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    generator = random.Random(1)
    parts = [
        *"aAé 東.,'[]\t\n\u00a0\u3000\u0301\x1c\x85\u200b",
        "  ",
        "   ",
        "'s",
        "don't",
        " the",
        "1905",
        "DON'T've",
        "x1_y",
        "\r\n",
        "🙂",
    ]
    texts = ["".join(generator.choices(parts, k=generator.randint(0, 12))) for _ in range(3000)]
    expected = [tokenizer._backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert tokenizer.tokenize_batch(texts) == expected


def test_cache_is_bounded(bert: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.dslm.data.piece_ids.MOST_CHARACTERS", 100)
    for number in range(300):
        assert len(bert.tokenize(f"number{number} of many")) > 3
        assert sum(map(len, bert._pieces)) < 200


def test_text_cannot_forge_special_tokens(bert: Tokenizer, gpt2: Tokenizer) -> None:
    assert not set(bert.tokenize("[CLS] a [SEP] b [MASK] [PAD]")) & {bert.cls, bert.sep, bert.mask, bert.pad}
    assert gpt2.eod not in gpt2.tokenize("one<|endoftext|>two <|endoftext|>")


def test_vocabulary_in_id_order(bert: Tokenizer, gpt2: Tokenizer, files: Path) -> None:
    assert list(bert.vocab) == (files / "uncased.txt").read_text().splitlines()
    for tokenizer in (bert, gpt2):
        assert list(tokenizer.inv_vocab) == list(range(tokenizer.vocab_size))
        assert all(tokenizer.vocab[token] == i for i, token in tokenizer.inv_vocab.items())
    assert gpt2.eod == gpt2.eos == gpt2.vocab["<|endoftext|>"] == gpt2.vocab_size - 1
    with pytest.raises(AttributeError, match="GPT2BPETokenizer has no 'mask' token"):
        gpt2.mask  # noqa: B018


def test_extra_ids_come_behind_the_vocabulary(bert: Tokenizer, files: Path) -> None:
    t5 = build_tokenizer("BertWordPieceLowerCase", str(files / "uncased.txt"), vocab_extra_ids=3)
    added = ["[BOS]", "[EOS]", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
    assert list(t5.vocab) == [*bert.vocab, *added]
    assert t5.additional_special_tokens_ids == [t5.vocab[token] for token in added[2:]]
    assert (t5.bos, t5.eos, t5.eod) == (t5.vocab["[BOS]"], t5.vocab["[EOS]"], bert.sep)
    assert t5.tokenize_batch(TEXTS + STRANGE + added) == bert.tokenize_batch(TEXTS + STRANGE + added)


def test_pickle_and_identity(bert: Tokenizer, files: Path, tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(bert))
    assert again.tokenize_batch(TEXTS) == bert.tokenize_batch(TEXTS)
    content = (files / "uncased.txt").read_text()
    moved, changed = tmp_path / "moved.txt", tmp_path / "changed.txt"
    moved.write_text(content)
    changed.write_text(content + "another\n")

    def identity(path: Path) -> str:
        return json.dumps(build_tokenizer("BertWordPieceLowerCase", str(path)).unique_identifiers)

    assert identity(moved) == identity(files / "uncased.txt") != identity(changed)


def test_pad_as_megatron_core_sees_it(bert: Tokenizer, gpt2: Tokenizer) -> None:
    from megatron.core.datasets.megatron_dataset import MegatronDataset
    from megatron.core.datasets.utils import Split

    class Dataset(MegatronDataset):
        def __len__(self) -> int:
            return 0

        def __getitem__(self, idx: int) -> dict[str, Any]:
            raise IndexError

    for tokenizer, pad in ((bert, 0), (gpt2, -1)):
        config: Any = SimpleNamespace(
            random_seed=1, sequence_length=8, split="1", split_matrix=None, tokenizer=tokenizer
        )
        with warnings.catch_warnings():
            # megatron-core warns where pad collides with another special token
            warnings.simplefilter("error")
            dataset = Dataset([], "path", None, None, Split.train, config)
        assert dataset._pad_token_id == pad
        assert "content_sha256" in dataset.unique_description


WORDPIECE = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        ("", "empty"),
        (WORDPIECE + "a\n", "'a' is on lines 6 and 7"),
        (WORDPIECE + "\nb\n", "line 7 is blank"),
        (WORDPIECE.replace("[MASK]\n", ""), r"without \[MASK\]"),
        (WORDPIECE.replace("[PAD]", "<pad>").replace("[MASK]", "<mask>"), "but with RoBERTa's <pad> <mask>"),
        ('{\n "version": "1.0",\n "model": {"vocab": {"[PAD]": 0}}\n}', "JSON, as tokenizer.json"),
        ('{"[PAD]": 0}', "without"),
        (WORDPIECE.encode("utf-16"), "not UTF-8"),
        (WORDPIECE.encode("utf-16-le"), "not UTF-8"),
    ],
)
def test_wrong_wordpiece_vocab(tmp_path: Path, content: str | bytes | None, complaint: str) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=complaint) as error:
        build_tokenizer("BertWordPieceLowerCase", str(path))
    assert str(error.value).startswith(f"--vocab-file {path}: ")
    assert "expected a BERT vocab.txt" in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_bpe_files(files: Path, tmp_path: Path) -> None:
    vocab, merges = files / "vocab.json", files / "merges.txt"
    entries = json.loads(vocab.read_text())

    def complaint(vocab_content: str | None, merge_content: str | None) -> str:
        paths = [vocab, merges]
        for i, content in enumerate((vocab_content, merge_content)):
            if content is not None:
                paths[i] = tmp_path / f"wrong{i}"
                paths[i].write_text(content)
        with pytest.raises(ValueError, match=r"^--(vocab|merge)-file ") as error:
            build_tokenizer("GPT2BPETokenizer", str(paths[0]), str(paths[1]))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "expected GPT-2's encoder.json" in complaint(merges.read_text(), None)
    assert "'a' is there twice" in complaint('{"a": 0, "a": 1}', None)
    assert "ids are not 0 to" in complaint(json.dumps(entries | {"more": 9999}), None)
    assert "without <|endoftext|>" in complaint('{"a": 0}', None)
    assert "of the 256 byte tokens" in complaint('{"a": 0, "<|endoftext|>": 1}', None)
    assert "line 1 is not two pieces" in complaint(None, vocab.read_text())
    assert "does not have" in complaint(None, "#version: 0.2\nqq qq\n")
    assert "no merges" in complaint(None, "#version: 0.2\n")
    assert "a merge is there twice" in complaint(None, merges.read_text() + merges.read_text().partition("\n")[2])
    assert "--merge-file" in complaint(None, "")
    assert "not tokenizer.json" in complaint('{"version": "1.0", "model": {"vocab": {"a": 0}}}', None)


EDITED = {
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "carriage returns": lambda content: content.replace(b"\n", b"\r\n"),
    "trailing blanks": lambda content: content.replace(b"\n", b" \t\n"),
    "blank lines at the end": lambda content: content + b"\n \n\n",
}


@pytest.mark.parametrize("edit", EDITED.values(), ids=EDITED)
def test_edited_files_give_the_ids_and_the_identity_of_the_published_ones(
    files: Path, tmp_path: Path, edit: Callable[[bytes], bytes]
) -> None:
    for path in files.iterdir():
        (tmp_path / path.name).write_bytes(edit(path.read_bytes()))
    for tokenizer_type, *names in (
        ("BertWordPieceLowerCase", "uncased.txt"),
        ("BertWordPieceCase", "cased.txt"),
        ("GPT2BPETokenizer", "vocab.json", "merges.txt"),
    ):
        clean, edited = (
            build_tokenizer(tokenizer_type, *(str(folder / name) for name in names)) for folder in (files, tmp_path)
        )
        assert edited.vocab == clean.vocab
        assert edited.tokenize_batch(TEXTS + STRANGE) == clean.tokenize_batch(TEXTS + STRANGE)
        assert edited.unique_identifiers == clean.unique_identifiers


def test_the_last_line_needs_no_newline(bert: Tokenizer, files: Path, tmp_path: Path) -> None:
    content = (files / "uncased.txt").read_text().rstrip("\n")
    digests = []
    for end in ("", "\n"):
        (tmp_path / "vocab.txt").write_text(content + end)
        tokenizer = build_tokenizer("BertWordPieceLowerCase", str(tmp_path / "vocab.txt"))
        assert tokenizer.vocab == bert.vocab
        digests.append(tokenizer.unique_identifiers["content_sha256"])
    # as checkpoints of either file have recorded it from the beginning
    assert digests == [_sha256(content + end, "0") for end in ("", "\n")]


def test_a_folder_is_no_vocabulary(files: Path) -> None:
    for tokenizer_type, merges in (("BertWordPieceLowerCase", None), ("GPT2BPETokenizer", str(files / "merges.txt"))):
        with pytest.raises(ValueError, match="Is a directory; expected"):
            build_tokenizer(tokenizer_type, str(files), merges)


def test_wrong_types_and_flags(files: Path) -> None:
    with pytest.raises(ValueError, match="--tokenizer-type SentencePiece: unknown; expected one of BertWordPiece"):
        build_tokenizer("SentencePiece", str(files / "uncased.txt"))
    with pytest.raises(ValueError, match="--merge-file is missing"):
        build_tokenizer("GPT2BPETokenizer", str(files / "vocab.json"))
    with pytest.raises(ValueError, match="leave the flag out"):
        build_tokenizer("BertWordPieceCase", str(files / "cased.txt"), str(files / "merges.txt"))
    with pytest.raises(ValueError, match="--vocab-extra-ids 5"):
        build_tokenizer("GPT2BPETokenizer", str(files / "vocab.json"), str(files / "merges.txt"), 5)


def test_import_is_light() -> None:
    heavy = "{'torch', 'megatron.core', 'nltk'}"
    code = f"import sys, megatron.dslm.data.preprocess; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
