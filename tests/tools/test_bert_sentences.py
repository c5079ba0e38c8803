"""Sentences that BERT's sampling can use: found where Punkt finds none, and cut where they are too long for it."""

# ruff: noqa: RUF001  (full stops of other scripts are the point)

import itertools
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset

from megatron.dslm.data.sentences import build_sentence_splitter
from megatron.dslm.data.tokenizer import Tokenizer, build_tokenizer
from megatron.dslm.data.vocab_training import train_bpe
from tests.distributed.pool import RankPool

WORKER = "tests.training.pretrain_workers:run"
SHAPE = ["--num-layers", "1", "--hidden-size", "16", "--num-attention-heads", "2", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--train-iters", "1", "--lr", "1e-3", "--eval-iters", "1", "--split", "90,10,0"]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of letters: a word has as many tokens."""
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    letters = string.ascii_lowercase
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".山水。", *letters, *(f"##{one}" for one in letters)]
    path.write_text("\n".join(tokens) + "\n")
    return path


@pytest.fixture(scope="module")
def bert(vocab: Path) -> Tokenizer:
    return build_tokenizer("BertWordPieceLowerCase", str(vocab))


@pytest.fixture
def make(tool: Callable[..., Any], vocab: Path, tmp_path: Path) -> Callable[..., Any]:
    """`make(texts, *flags)` preprocesses documents into tmp_path/out, with --split-sentences."""

    def run(texts: list[str], *flags: object) -> Any:
        (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        common = ["--input", tmp_path / "docs.jsonl", "--output-prefix", tmp_path / "out", "--split-sentences"]
        wordpiece = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", vocab]
        return tool("preprocess_data", *common, *wordpiece, "--workers", 1, *flags)

    return run


def documents_of(prefix: Path) -> list[list[list[int]]]:
    """Documents of sentences of ids, as megatron-core reads them."""
    dataset = IndexedDataset(str(prefix))
    bounds = itertools.pairwise(dataset.document_indices)
    return [[dataset[i].tolist() for i in range(*bound)] for bound in bounds]


@pytest.mark.parametrize("name", ["punkt", "nltk"])
def test_full_stops_of_chinese_and_japanese_end_sentences(name: str) -> None:
    split = build_sentence_splitter(name)
    for sentences in (
        ["山水城市。", "音乐战争！？", "历史"],
        ["“你好。”", "他说：「再见！」", "然后走了｡", "（完。）", "新"],
        ["Mr. Smith said 好。", "It rained.", "Yes！"],
        ['他说："你好。"', "走了。"],
        ["モーニング。。。！", "はい？」", "."],
    ):
        for between in ("", " ", "\n\u3000"):
            joined = "".join(one + (between or " " * one.endswith(('"', "."))) for one in sentences)
            assert split(joined) == sentences
    for unsplit in ("One ・ or … ends none", "一，二；三"):
        assert split(unsplit) == [unsplit]
    kept = build_sentence_splitter(name, keep_newlines=True)
    assert kept("一。二。\n三") == ["一。", "二。\n", "三\n"]
    assert build_sentence_splitter("newline")("一。二。\n三。") == ["一。二。", "三。"]


def test_most_documents_of_one_sentence_are_told(make: Callable[..., Any]) -> None:
    """Chinese without full stops, and Thai, have no sentences to any splitter."""
    for texts, flags, unsplit in (
        (["山水山", "ไทย ไทย", "Ab cd. Ef gh.", "a b"], [], 3),
        (["山水。山水。", "Ab cd. Ef gh.", "山水"], [], 0),
        (["Ab cd. Ef gh.", "山水。山水。", "山\n水"], ["--sentence-splitter", "newline"], 2),
    ):
        result = make(texts, *flags)
        warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
        assert (result.exit_code, len(warnings)) == (0, bool(unsplit)), result
        if unsplit:
            splitter = flags[-1] if flags else "punkt --lang english"
            problem = f"{unsplit} of {len(texts)} documents are one sentence to --sentence-splitter {splitter},"
            assert problem in warnings[0]
            assert "--sentence-splitter newline" in warnings[0]


@pytest.mark.parametrize("append_eod", [0, 1])
def test_long_sentences_are_cut_between_words(
    make: Callable[..., Any], bert: Tokenizer, tmp_path: Path, append_eod: int
) -> None:
    texts = [
        "abc " * 170 + "a a",  # 512 tokens, the most that sampling takes
        "a bcd " * 700,
        "Ab cd. " + "a " * 512 + "bc. Ab cd.",
        "Ab cd. Ef gh. Ij kl.",
        "abc " * 100_000,
    ]
    result = make(texts, *["--append-eod"] * append_eod)
    documents = documents_of(tmp_path / "out_text_sentence")
    for text, document in zip(texts, documents, strict=True):
        assert list(itertools.chain(*document)) == bert.tokenize(text) + [bert.eod] * append_eod
        for sentence in document:
            assert len(sentence) <= 512
            assert sentence != [bert.eod]
            assert not bert.inv_vocab[sentence[0]].startswith("##"), "a cut inside a word"
    # as few pieces as can be, and none much shorter than another
    assert [len(document) for document in documents] == [1 + append_eod, 6, 4, 3, 589]
    for document in (documents[1], documents[4]):
        assert max(map(len, document)) - min(map(len, document)) <= 12
    assert f"sentences ({3 + append_eod} of above 512 tokens were cut)," in result.stdout


def test_only_sentences_for_bert_are_cut(
    make: Callable[..., Any], tool: Callable[..., Any], vocab: Path, tmp_path: Path
) -> None:
    train_bpe(lambda: iter(["bc bc bc"]), 258, tmp_path / "vocab.json", tmp_path / "merges.txt")
    gpt = ["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", tmp_path / "vocab.json"]
    text = "a" * 600
    assert "cut" not in make([text], *gpt, "--merge-file", tmp_path / "merges.txt").stdout
    assert [list(map(len, one)) for one in documents_of(tmp_path / "out_text_sentence")] == [[600]]
    whole = ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", vocab, "--output-prefix", tmp_path / "whole"]
    (tmp_path / "docs.jsonl").write_text(json.dumps({"text": "a " * 600}) + "\n")
    assert "cut" not in tool("preprocess_data", "--input", tmp_path / "docs.jsonl", *whole).stdout
    assert [list(map(len, one)) for one in documents_of(tmp_path / "whole_text_document")] == [[600]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "code", "message"),
    [
        (["Ab cd. Ef gh. Ij."] * 90 + ["Ab cd."] * 10, 2, "10 of 10 documents in validation (one sentence)"),
        (["a " * 700 + ". " + "B " * 700] * 20, 0, "padded to 128\n"),
        (["Ab cd. Ef gh.", "Ab cd. " + "c " * 700] * 10, 0, "padded to 128\n"),
        (
            ["Ab cd. Ef gh.", "Ab cd."] * 10,
            0,
            "; not used: 9 of 18 documents in train (one sentence), 1 of 2 documents in",
        ),
        (["山水。山水。山。"] * 20, 0, "padded to 128\n"),
    ],
    ids=["validation of single sentences", "long sentences alone", "long sentences in half", "told", "Chinese"],
)
def test_a_run_ends_and_uses_what_it_says(
    make: Callable[..., Any],
    ranks: RankPool,
    vocab: Path,
    tmp_path: Path,
    texts: list[str],
    code: int,
    message: str,
) -> None:
    assert make(texts).exit_code == 0
    data = ["--data-path", f"{tmp_path}/out_text_sentence", "--vocab-file", str(vocab)]
    argv = [*SHAPE, *TRAINING, *data]
    [(ended, printed)] = ranks.run(1, WORKER, process_group=False, timeout=60.0, argv=argv, model="bert")
    assert ended == code, printed
    assert message in printed
