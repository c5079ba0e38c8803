"""Documents that BERT sampling leaves out: counted against what megatron-core samples, and told before a run starts."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from megatron.core.datasets import helpers
from megatron.core.datasets.blended_megatron_dataset_config import (
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)

from dslm_patches.errors import UserError
from megatron.dslm.arguments import parse_args
from megatron.dslm.arguments.data_files import _prefixes, _split_edges
from megatron.dslm.data.content import describe_data
from megatron.dslm.data.vocab_training import train_bpe
from megatron.dslm.models.bert.documents import DocumentCounts, count_documents, describe_unused
from tests.reliability.site import make_site, pretraining_flags, words, write_data

# Sentences of a document by their tokens: what sampling can use, and each reason why it cannot.
GOOD, ONE, LONG, EMPTY = [3, 512], [4], [3, 513, 3], []


def lay_out(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all sentences, and where documents end among them."""
    lengths = np.array([length for document in documents for length in document], dtype=np.int32)
    return lengths, np.cumsum([0, *map(len, documents)])


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 1 << 20])
def test_the_counts_are_what_megatron_core_does_not_sample(
    pairs: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.dslm.models.bert.documents._AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    lengths = [1, 20, 511, 512, 513, 900]
    odds = [0.2, 0.3, 0.2, 0.2, 0.05, 0.05]
    documents = [generator.choice(lengths, generator.integers(0, 5), p=odds).tolist() for _ in range(200)]
    documents += [[], [513], [512, 512], []]
    sizes, ends = lay_out(documents)
    for begin, end in ((0, 204), (10, 130), (203, 204)):
        counts = count_documents(sizes, ends, begin, end, pairs)
        # one epoch of every document, short samples left aside
        samples = helpers.build_mapping(ends[begin : end + 1], sizes, 1, 1 << 30, 128, 0.0, 1, False, 2 if pairs else 1)
        used = {int(np.searchsorted(ends, first, side="right")) for first, _, _ in samples}
        assert counts.documents - counts.unused == len(used)
        assert counts.empty == sum(not document for document in documents[begin:end])
        ones = sum(len(document) == 1 for document in documents[begin:end])
        assert counts.one_sentence == (ones if pairs else 0)


def test_splits_are_cut_as_megatron_core_cuts_them() -> None:
    names = ("train", "validation", "test")
    for split in ("969,30,1", "90,5,5", "1,1,0", "1,0,1", "0.7,0.2,0.1", "1,1,1"):
        matrix = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
        for documents in [*range(1, 60), 1000, 4415, 10**9 + 1]:
            theirs = {
                name: tuple(round(edge * float(documents)) for edge in edges)
                for name, edges in zip(names, matrix, strict=True)
                if edges is not None
            }
            assert _split_edges(split, documents) == theirs


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with what a small run reads, and data of some documents that cannot be used."""
    make_site(tmp_path)
    write(tmp_path / "mixed", [GOOD, ONE, GOOD, LONG, GOOD, EMPTY, GOOD, ONE, GOOD, GOOD])
    write(tmp_path / "tail", [GOOD, GOOD, ONE, ONE])
    write(tmp_path / "long", [LONG, LONG])
    write(tmp_path / "alone", [ONE, [900]])
    return tmp_path


def write(prefix: Path, documents: list[list[int]]) -> None:
    sizes, ends = lay_out(documents)
    write_data(prefix, [[5] * size for size in sizes], ends.tolist())


def flags(site: Path, **changes: str | None) -> list[str]:
    changes = {name: value and value.format(site=site) for name, value in changes.items()}
    return words({**pretraining_flags(site), **changes})


def test_what_is_not_used_is_counted_by_split(site: Path) -> None:
    counts = parse_args("bert", flags(site, data_path="{site}/mixed")).document_counts
    assert counts == {"train": DocumentCounts(5, 0, 1, 1), "validation": DocumentCounts(5, 1, 1, 0)}
    assert describe_unused(counts) == (
        "1 of 5 documents in train (one sentence), 1 (a sentence above 512 tokens), "
        "1 of 5 documents in validation (one sentence), 1 (empty)"
    )
    # a blend's files are cut each for itself, files of a split are that split's, and no evaluation draws no samples
    blend = parse_args("bert", flags(site, data_path="1 {site}/mixed 2 {site}/tiny")).document_counts
    assert blend == {"train": DocumentCounts(6, 0, 1, 1), "validation": DocumentCounts(6, 1, 1, 0)}
    split = {"data_path": None, "split": None, "train_data_path": "{site}/mixed"}
    one = parse_args("bert", flags(site, **split, valid_data_path="{site}/tiny")).document_counts
    assert one == {"train": DocumentCounts(10, 1, 2, 1), "validation": DocumentCounts(2)}
    none = parse_args("bert", [*flags(site, data_path="{site}/tail"), "--eval-iters", "0"]).document_counts
    assert none == {"train": DocumentCounts(2)}
    assert describe_unused(none) == ""


def test_single_sentences_are_used_without_the_binary_head(site: Path) -> None:
    args = parse_args("bert", [*flags(site, data_path="{site}/alone {site}/tail"), "--bert-no-binary-head"])
    assert args.document_counts == {"train": DocumentCounts(3), "validation": DocumentCounts(3)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_path": "{site}/tail"}, ("--data-path", "{site}/tail", "2 of 2 documents in validation", "--split")),
        ({"data_path": "0.5 {site}/mixed 0.5 {site}/tail"}, ("{site}/tail", "validation", "--bert-no-binary-head")),
        ({"data_path": "{site}/long"}, ("{site}/long", "for train", "above 512 tokens", "preprocess_data.py")),
        (
            {
                "data_path": None,
                "split": None,
                "train_data_path": "{site}/tiny",
                "valid_data_path": "{site}/tiny {site}/long",
            },
            ("--valid-data-path", "{site}/long", "validation", "other data"),
        ),
    ],
)
def test_a_split_without_a_usable_document_is_refused(
    site: Path, changes: dict[str, str | None], named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args("bert", flags(site, **changes))
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (2, 1), error
    for part in named:
        assert part.format(site=site) in error


def test_gpt_uses_every_document(site: Path) -> None:
    train_bpe(lambda: iter(["to be or not to be"]), 260, site / "gpt.json", site / "merges.txt")
    files = {"vocab_file": "{site}/gpt.json", "merge_file": "{site}/merges.txt", "data_path": "{site}/long"}
    assert parse_args("gpt", flags(site, **files)).document_counts == {}


@pytest.mark.parametrize(
    ("blend", "prefixes"),
    [
        (["a"], ["a"]),
        (["2020"], ["2020"]),
        (["a", "b"], ["a", "b"]),
        (["./2020", "a"], ["./2020", "a"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        (["0.3", "a", "1e-2", "b"], ["a", "b"]),
        (["1", "a"], ["a"]),
    ],
)
def test_prefixes_of_a_blend(blend: list[str], prefixes: list[str]) -> None:
    assert _prefixes("--data-path", blend) == prefixes


@pytest.mark.parametrize(
    ("blend", "complaint"),
    [
        ("0 a 1 b", "positive weight"),
        ("nan a 1 b", "positive weight"),
        ("inf a", "positive weight"),
        ("1 a b", "positive weight"),
        ("1 a b c", "positive weight"),
        ("a 1", "positive weight"),
        ("a b 2020", "write ./2020"),
        ("2020 a", "write ./2020"),
    ],
)
def test_blends_that_are_refused(blend: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2020.idx").touch()
    with pytest.raises(UserError, match=complaint):
        _prefixes("--data-path", blend.split())


@pytest.mark.parametrize("blend", ["a b a", "1 a 2 a", "a ./a", "a copy"])
def test_data_that_come_twice_are_refused(blend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, token in (("a", 5), ("b", 6), ("copy", 5)):
        write_data(tmp_path / name, [[token, 7]], [0, 1])
    args = Namespace(data_path=blend.split(), train_data_path=None, valid_data_path=None, test_data_path=None)
    with pytest.raises(UserError, match=r"--data-path names (a twice|a and (./a|copy), which hold the same data)"):
        describe_data(args)
    args.data_path, args.train_data_path, args.valid_data_path = None, ["a", "b"], ["copy"]
    describe_data(args)
