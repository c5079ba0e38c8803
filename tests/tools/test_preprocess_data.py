"""Indexed datasets read back by megatron-core against documents tokenized by hand."""

import gzip
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import zstandard
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from megatron.dslm.data.indexed_writer import IndexedDatasetWriter
from megatron.dslm.data.sentences import build_sentence_splitter
from megatron.dslm.data.tokenizer import Tokenizer, build_tokenizer
from megatron.dslm.data.vocab_training import train_bpe, train_wordpiece
from tests.corpus import FOLDER
from tests.marks import slow_but

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ["Dr. Smith arrived at 5 p.m. on Jan. 3rd.", "He was late!", "\nNobody minded, did they?"],
    ["One sentence without an end"],
    [],
    ["The U.S. team won 3.5 to 2.", "\nA heading", "\nThe end came soon."],
]
"""Sentences; joined by spaces, or by the newline that begins one."""


def join(sentences: list[str]) -> str:
    return " ".join(sentences).replace(" \n", "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with docs.jsonl and vocabularies."""
    folder = tmp_path_factory.mktemp("preprocess")
    texts = [join(sentences) for sentences in DOCUMENTS]
    lines = [json.dumps({"text": text, "title": f"title {i}"}) + "\n" for i, text in enumerate(texts)]
    lines.insert(1, "  \n")
    lines.insert(3, json.dumps({"text": " \n\t\n ", "title": "blank"}) + "\n")
    (folder / "docs.jsonl").write_text("".join(lines))
    train_wordpiece(lambda: iter(texts * 3), 150, True, folder / "vocab.txt")
    train_bpe(lambda: iter(texts * 3), 300, folder / "vocab.json", folder / "merges.txt")
    return folder


@pytest.fixture(scope="module")
def bert(files: Path) -> Tokenizer:
    return build_tokenizer("BertWordPieceLowerCase", str(files / "vocab.txt"))


@pytest.fixture(scope="module")
def gpt2(files: Path) -> Tokenizer:
    return build_tokenizer("GPT2BPETokenizer", str(files / "vocab.json"), str(files / "merges.txt"))


@pytest.fixture
def flags(files: Path) -> dict[str, list[Any]]:
    return {
        "bert": ["--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", files / "vocab.txt"],
        "gpt": [
            *["--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", files / "vocab.json"],
            *["--merge-file", files / "merges.txt"],
        ],
    }


def read(prefix: Path) -> list[list[list[int]]]:
    """Documents of sequences of ids, as megatron-core reads them."""
    dataset = IndexedDataset(str(prefix))
    bounds = dataset.document_indices
    return [[dataset[i].tolist() for i in range(*bound)] for bound in itertools.pairwise(bounds)]


def test_sentences_for_bert(
    tool: Callable[..., Any], files: Path, bert: Tokenizer, flags: dict[str, list[Any]], tmp_path: Path
) -> None:
    prefix = tmp_path / "new" / "wiki"
    common = ["--input", files / "docs.jsonl", "--split-sentences", *flags["bert"], "--output-prefix", prefix]
    result = tool("preprocess_data", *common, "--workers", 1)
    assert result.exit_code == 0, result
    expected = [[bert.tokenize(sentence) for sentence in document] for document in DOCUMENTS if document]
    assert read(Path(f"{prefix}_text_sentence")) == expected
    num_tokens = sum(len(ids) for document in expected for ids in document)
    assert f"3 documents (2 empty ones left out), 7 sentences, {num_tokens} tokens" in result.stdout
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "wiki_text_sentence.bin",
        "wiki_text_sentence.idx",
    ]

    # a second run replaces the files
    tool("preprocess_data", *common, "--workers", 1, "--append-eod", "--json-keys", "title", "text")
    for document in expected:
        document[-1].append(bert.sep)
    assert read(Path(f"{prefix}_text_sentence")) == expected
    assert read(Path(f"{prefix}_title_sentence"))[-1] == [[*bert.tokenize("title 3"), bert.eod]]


def test_documents_for_gpt(
    tool: Callable[..., Any], files: Path, gpt2: Tokenizer, flags: dict[str, list[Any]], tmp_path: Path
) -> None:
    common = [
        "--input",
        files / "docs.jsonl",
        *flags["gpt"],
        "--output-prefix",
        tmp_path / "wiki",
        "--workers",
        1,
    ]
    assert tool("preprocess_data", *common, "--append-eod").exit_code == 0
    texts = [join(sentences) for sentences in DOCUMENTS]
    texts[2] = " \n\t\n "  # blank, but not empty for GPT-2
    assert read(tmp_path / "wiki_text_document") == [[[*gpt2.tokenize(text), gpt2.eod]] for text in texts]
    # --keep-newlines leaves its newline on the last sentence of a paragraph
    assert tool("preprocess_data", *common, "--split-sentences", "--keep-newlines").exit_code == 0
    expected = [
        [
            gpt2.tokenize(sentence.strip() + ("\n" if is_last or after.startswith("\n") else ""))
            for sentence, after, is_last in zip(
                document, [*document[1:], ""], [False] * (len(document) - 1) + [True], strict=True
            )
        ]
        for document in DOCUMENTS
        if document
    ]
    assert read(tmp_path / "wiki_text_sentence") == expected


def test_workers_and_globs_give_the_same_bytes(
    tool: Callable[..., Any], files: Path, flags: dict[str, list[Any]], tmp_path: Path
) -> None:
    """Enough text for several chunks a worker, the first one far longer to tokenize than the others."""
    lines = (files / "docs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a1.jsonl").write_text(
        json.dumps({"text": "Long text with a sentence. " * 10000}) + "\n" + "".join(lines) * 100
    )
    (tmp_path / "a2.jsonl").write_text("".join(lines) * 1000)
    outputs = []
    for workers, inputs in (
        (1, [tmp_path / "a1.jsonl", tmp_path / "a2.jsonl"]),
        (2, [tmp_path / "a*.jsonl"]),
    ):
        prefix = tmp_path / f"out{workers}"
        common = ["--split-sentences", *flags["bert"], "--output-prefix", prefix, "--workers", workers]
        result = tool("preprocess_data", "--input", *inputs, *common)
        assert result.exit_code == 0, result
        outputs.append([Path(f"{prefix}_text_sentence.{suffix}").read_bytes() for suffix in ("bin", "idx")])
        assert "Processed" in result.stderr
    assert outputs[0] == outputs[1]
    assert len(read(tmp_path / "out2_text_sentence")) == 1 + 1100 * 3


@pytest.mark.parametrize("vocab_size", [1000, 65_499, 65_500, 100_000])
def test_the_writer_writes_what_megatron_core_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vocab_size: int
) -> None:
    monkeypatch.setattr("megatron.dslm.data.indexed_writer._BLOCK", 7)
    generator = numpy.random.default_rng(0)
    dtype = DType.optimal_dtype(vocab_size)
    theirs = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype)
    with IndexedDatasetWriter(tmp_path / "ours.bin", tmp_path / "ours.idx", numpy.dtype(dtype).char) as ours:
        for _ in range(20):
            documents = [generator.integers(1, 9, generator.integers(1, 5)).tolist() for _ in range(3)]
            lengths = [length for document in documents for length in document]
            tokens = generator.integers(0, vocab_size, sum(lengths)).astype(dtype)
            ours.add(tokens.tobytes(), lengths, map(len, documents))
            for document in documents:
                theirs.add_document(tokens[: sum(document)], document)
                tokens = tokens[sum(document) :]
        ours.add(b"", [], [])
        ours.finish()
    theirs.finalize(str(tmp_path / "theirs.idx"))
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"ours.{suffix}").read_bytes() == (tmp_path / f"theirs.{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.bin", "ours.idx", "theirs.bin", "theirs.idx"]


def test_sentence_splitters() -> None:
    for name in ("punkt", "nltk"):
        split = build_sentence_splitter(name)
        for sentences in DOCUMENTS:
            assert split(join(sentences)) == [sentence.strip() for sentence in sentences]
        assert split(" \n\n ") == []
    assert build_sentence_splitter("newline")("One. Two.\n\n Three. ") == ["One. Two.", "Three."]
    with pytest.raises(ValueError, match=r"--lang klingon: no Punkt model; expected one of .*english"):
        build_sentence_splitter("nltk", "klingon")
    german = "Er kam z.B. gestern. Dann ging er."
    assert build_sentence_splitter("punkt", "german")(german) == ["Er kam z.B. gestern.", "Dann ging er."]


@pytest.mark.parametrize("every", slow_but([5], [5, 1]))
def test_punkt_is_nltks_to_the_letter(corpus: None, every: int) -> None:
    """On real text, and on strings made of what its rules turn on; on every n-th of them."""
    with open(FOLDER / "wikipedia.jsonl") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert sum(map(len, texts)) > 2_000_000
    draw = random.Random(4)
    parts = [
        *"..??!! ()[]{}\"\"''-,;:*`",
        *"     \t\r\x0b",
        "\u201d",
        "\xa0",
        "...",
        ". . .",
        "--",
        "A.",
        "b",
        "Dr.",
        "e.g.",
    ]
    parts += [
        "1",
        "3.5",
        "-2.",
        "U.S.",
        "the",
        "The",
        "However,",
        "well-known.",
        "St.",
        "\xe9t\xe9",
        "I",
        "p.m.",
        "No.",
        "_x.",
    ]
    texts += ["".join(draw.choices(parts, k=draw.randint(1, 40))) for _ in range(20_000)]
    for lang, sample in (("english", texts), ("german", texts[-3000:]), ("french", texts[:20])):
        ours, theirs = (build_sentence_splitter(name, lang) for name in ("punkt", "nltk"))
        for text in sample[::every]:
            assert ours(text) == theirs(text)


def test_long_paragraphs_are_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    redos = pytest.importorskip("nltk.redos")
    monkeypatch.setattr(redos, "DEFAULT_TIMEOUT", 1e-6)
    for name in ("punkt", "nltk"):
        assert len(build_sentence_splitter(name)("It rained. " * 5000)) == 5000


def test_strange_json(tool: Callable[..., Any], flags: dict[str, list[Any]], gpt2: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "strange.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "half a pair: \\ud83d."}\r\n{"text": "a pair: \\ud83d\\ude42"}')
    assert tool("preprocess_data", "--input", path, *flags["gpt"], "--output-prefix", tmp_path / "o").exit_code == 0
    texts = [gpt2.detokenize(document[0]) for document in read(tmp_path / "o_text_document")]
    assert texts == ["half a pair: \ufffd.", "a pair: \U0001f642"]


@pytest.mark.parametrize("source", [".jsonl.gz", ".jsonl.zst", "-"])
def test_compressed_and_standard_input(
    tool: Callable[..., Any], files: Path, flags: dict[str, list[Any]], tmp_path: Path, source: str
) -> None:
    content = (files / "docs.jsonl").read_bytes()
    compress = {".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.ZstdCompressor().compress, "-": bytes}[source]
    path = tmp_path / f"docs{source}"
    path.write_bytes(compress(content))
    for name, given in (("plain", files / "docs.jsonl"), ("other", "-" if source == "-" else path)):
        common = [*flags["bert"], "--split-sentences", "--output-prefix", tmp_path / name, "--workers", 2]
        result = tool("preprocess_data", "--input", given, *common, stdin=content if given == "-" else b"")
        assert result.exit_code == 0, result
    for suffix in ("bin", "idx"):
        plain, other = (tmp_path / f"{name}_text_sentence.{suffix}" for name in ("plain", "other"))
        assert plain.read_bytes() == other.read_bytes()
    if source != "-":
        path.write_bytes(compress(content)[:-9])
        result = tool("preprocess_data", "--input", path, *flags["bert"], "--output-prefix", tmp_path / "cut")
        result.assert_user_error(path.name, "damaged")
        assert not list(tmp_path.glob("*cut*"))


def test_bad_lines_are_counted_and_named(tool: Callable[..., Any], flags: dict[str, list[Any]], tmp_path: Path) -> None:
    good = b'{"text": "fine"}'
    bad = {
        2: (b'{"text": "cut', "not valid JSON"),
        4: (b'{"title": "x"}', "key 'text' is missing"),
        5: (b'{"text": 1}', "key 'text' is a int"),
        6: (b'{"text": null}', "key 'text' is a NoneType"),
        7: (b'{"text": "\xff"}', "utf-8"),
        9: (b"[]", "a JSON list"),
        10: (b'{"text": "' + b"a " * (25 << 20) + b'"}', "longer than 32 MiB"),
        11: (b"[" * 100_000, "not valid JSON"),
        12: (b"\x00\x00", "not valid JSON"),
    }
    lines = [bad.get(number, (b"" if number == 8 else good, ""))[0] for number in range(1, 15)]
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"\n".join(lines))
    common = ["--input", path, *flags["bert"], "--output-prefix", tmp_path / "out"]
    halted = tool("preprocess_data", *common)
    halted.assert_user_error("broken.jsonl:2", "not valid JSON", "--on-bad-line skip")
    assert list(tmp_path.iterdir()) == [path]
    for workers in (1, 2):
        result = tool("preprocess_data", *common, "--on-bad-line", "skip", "--workers", workers)
        assert result.exit_code == 0, result
        warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
        assert len(warnings) == len(bad) + 1
        for warning, (number, (_, reason)) in zip(warnings, bad.items(), strict=False):
            assert f"broken.jsonl:{number}: " in warning
            assert reason in warning
        assert "9 bad lines were skipped" in warnings[-1]
        assert len(read(tmp_path / "out_text_document")) == 4


@pytest.mark.parametrize(
    ("content", "extra", "words"),
    [
        (None, [], ["--input", "no such file"]),
        ("", [], ["--input", "empty"]),
        ('{"text": "fine"}\n{"text": "cut', [], ["docs.jsonl:2", "not valid JSON"]),
        ('{"text": "fine"}\n[1]\n', [], ["docs.jsonl:2", "a JSON list"]),
        (
            '{"text": "fine"}\n\n{"title": 1}\n',
            [],
            ["docs.jsonl:3", "key 'text' is missing", "keys there: title"],
        ),
        ('{"text": ["a"]}\n', [], ["docs.jsonl:1", "key 'text' is a list"]),
        (b'{"text": "\xff"}\n', [], ["docs.jsonl:1", "utf-8"]),
        ('{"text": "  "}\n', [], ["no text under key 'text'"]),
        ("\n\n", [], ["no text under key 'text'"]),
        ('{"text": "a"}\n', ["--split-sentences", "--lang", "klingon"], ["--lang klingon", "english"]),
        ('{"text": "a"}\n', ["--keep-newlines"], ["--keep-newlines", "--split-sentences"]),
        ('{"text": "a"}\n', ["--workers", "0"], ["--workers", "at least 1"]),
        ('{"text": "a"}\n', ["--nonsense"], ["--nonsense"]),
        ('{"text": "a"}\n', ["--vocab-file", "nowhere.txt"], ["--vocab-file nowhere.txt", "No such file"]),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_user_errors(
    tool: Callable[..., Any],
    flags: dict[str, list[Any]],
    tmp_path: Path,
    content: str | bytes | None,
    extra: list[str],
    words: list[str],
    workers: int,
) -> None:
    path = tmp_path / "docs.jsonl"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    common = ["--input", path, *flags["bert"], "--output-prefix", tmp_path / "out", "--workers", workers]
    tool("preprocess_data", *common, *extra).assert_user_error(*words)
    assert list(tmp_path.iterdir()) == ([path] if content is not None else [])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_memory_does_not_grow_with_the_input(flags: dict[str, list[Any]], tmp_path: Path) -> None:
    """Peak resident memory of a process that reads, tokenizes and writes, beside the bytes that it reads."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path('tools/preprocess_data.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    draw, words = random.Random(0), ["river", "city", "people", "water", "stone", "bridge", "house"]
    peaks, sizes = [], []
    for count in (1500, 6000):
        with open(tmp_path / "docs.jsonl", "w") as lines:
            for _ in range(count):
                sentences = (" ".join(draw.choices(words, k=5)).capitalize() + "." for _ in range(30))
                lines.write(json.dumps({"text": " ".join(sentences)}) + "\n")
        common = ["--input", tmp_path / "docs.jsonl", "--output-prefix", tmp_path / "out", "--workers", 1]
        command = [sys.executable, "-c", code, *map(str, [*common, "--split-sentences", *flags["bert"]])]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        peaks.append(int(printed.split()[-1]) << 10)
        sizes.append((tmp_path / "docs.jsonl").stat().st_size)
    assert peaks[1] - peaks[0] < 0.5 * (sizes[1] - sizes[0]), (peaks, sizes)


def test_help_is_light() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['preprocess_data.py', '--help']\n"
        "try: runpy.run_path('tools/preprocess_data.py', run_name='__main__')\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'nltk', 'tqdm', 'tokenizers'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for flag in ("--json-keys", "--split-sentences", "--append-eod", "--log-interval", "(default: 1000)"):
        assert flag in result.stdout
