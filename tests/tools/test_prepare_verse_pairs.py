"""The verse tasks on a small invented book in two renderings; nothing is fetched."""

import csv
import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tools.corpora import verses as verses_module
from tools.corpora.verse_baselines import four_way_overlap_accuracy, majority, pair_overlap_accuracy
from tools.corpora.verse_tasks import WINDOW, Pair, VerseTasks
from tools.corpora.verses import Verse, assign_splits, chapter_texts, clean_markup, content_hash

ROOT = Path(__file__).resolve().parents[2]


def invented_verses() -> list[Verse]:
    """Two books of 30 chapters of 8 verses. A verse's renderings share six rare words, with others nearby one."""
    rng = random.Random(0)
    words = ["".join(rng.choice("bcdfglmnprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(3000)]
    verses = []
    for book in ("Alpha", "II Beta"):
        for chapter in range(1, 31):
            for number in range(1, 9):
                own = rng.sample(words, 6)
                kjv = " ".join(["And", *own, "spake", "unto", f"{book.split()[-1]}."])
                web = " ".join(["Then", *own[::-1], "said\tto", f"them{chr(10)}all."])
                verses.append(Verse(book, chapter, number, kjv, web))
    # a formula that recurs is right wherever it stands
    verses[3] = verses[3]._replace(web=verses[1].web)
    # too short to ask for
    verses[5] = verses[5]._replace(kjv="Jesus wept.")
    return verses


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> list[Verse]:
    found = invented_verses()
    monkeypatch.setattr(verses_module, "fetch_verses", lambda kjv, web: list(found))
    monkeypatch.setattr(verses_module, "VERSES_SHA256", content_hash(found))
    return found


@pytest.fixture
def made(tool: Callable[..., Any], book: list[Verse], tmp_path: Path) -> Path:
    result = tool("prepare_verse_pairs", "--output", tmp_path / "made", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result
    assert "word overlap" in result.stdout
    return tmp_path / "made"


def rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert {line.count("\t") for line in lines} == {lines[0].count("\t")}, "a tab or newline inside a field"
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def passages(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "high").glob("*.txt"))]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_columns(made: Path) -> None:
    mnli = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
    expected = {
        "paraphrase/train": "id qid1 qid2 question1 question2 is_duplicate",
        "paraphrase/dev": "id qid1 qid2 question1 question2 is_duplicate",
        "relation/train": f"{mnli} sentence1 sentence2 label1 gold_label",
        "relation/dev": f"{mnli} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label",
    }
    for name, columns in expected.items():
        assert list(rows(made / f"{name}.tsv")[0]) == columns.split()
    assert {row["genre"] for row in rows(made / "relation/dev.tsv")} == {"verses"}
    assert "not entailment" in (made / "README.txt").read_text()


def test_the_projects_readers_take_the_files(made: Path) -> None:
    from megatron.dslm.tasks.glue import GLUE_TASKS
    from megatron.dslm.tasks.race import read_race

    tasks = {task.name: task for task in GLUE_TASKS}
    for name, folder in {"QQP": "paraphrase", "MNLI": "relation"}.items():
        examples, notes = tasks[name].read(str(made / folder / "train.tsv"))
        assert (len(examples), notes) == (len(rows(made / folder / "train.tsv")), [])
    examples, _ = read_race(str(made / "four_way/dev"))
    summary = json.loads((made / "summary.json").read_text())
    assert len(examples) == summary["tasks"]["four_way"]["dev"]


def test_no_verse_is_in_both_splits(made: Path, book: list[Verse]) -> None:
    split_of = {}
    for line in (made / "verses.jsonl").read_text(encoding="utf-8").splitlines():
        verse = Verse(**json.loads(line))
        split_of[flat(verse.kjv)] = split_of[flat(verse.web)] = verse.split
    for split in ("train", "dev"):
        texts = [row[key] for row in rows(made / f"paraphrase/{split}.tsv") for key in ("question1", "question2")]
        texts += [row[key] for row in rows(made / f"relation/{split}.tsv") for key in ("sentence1", "sentence2")]
        for passage in passages(made / "four_way" / split):
            texts += [flat(text) for text in chain(passage["questions"], *passage["options"])]
            texts += [f"{text}.".strip() for text in flat(passage["article"]).split(".") if text]
        assert len(texts) > 500 if split == "train" else texts
        assert {split_of[text.strip()] for text in texts if text.strip() != "Jesus wept."} == {split}
    pretraining = (made / "train_verses.jsonl").read_text(encoding="utf-8")
    dev = [verse for verse in assign_splits(book, 1) if verse.split == "dev"]
    assert dev
    assert not any(json.dumps(verse.kjv)[1:-1] in pretraining for verse in dev)
    assert not any(flat(verse.web) in flat(pretraining.replace("\\n", " ").replace("\\t", " ")) for verse in dev)


def test_whole_chapters_are_split_and_the_seed_counts(book: list[Verse]) -> None:
    splits: dict[tuple[str, int], set[str]] = {}
    for verse in assign_splits(book, 1):
        splits.setdefault((verse.book, verse.chapter), set()).add(verse.split)
    assert {len(found) for found in splits.values()} == {1}
    assert 1 <= sum(found == {"dev"} for found in splits.values()) <= 14
    assert assign_splits(book, 1) == assign_splits(book, 1) != assign_splits(book, 2)
    assert content_hash(assign_splits(book, 1)) == content_hash(assign_splits(book, 2))


@pytest.mark.parametrize("split", ["train", "dev"])
def test_paraphrase(book: list[Verse], split: str) -> None:
    numbers = {verse[:3]: i for i, verse in enumerate(book)}
    pairs = VerseTasks(assign_splits(book, 1), split, 1).paraphrase()
    assert sum(pair.label for pair in pairs) * 2 == len(pairs)
    for pair in pairs:
        distance = abs(numbers[pair.kjv[:3]] - numbers[pair.web[:3]])
        assert (distance == 0) == (pair.label == 1)
        assert distance <= WINDOW
        assert pair.web.book == pair.kjv.book
        assert pair.label == 1 or pair.web.web != pair.kjv.web
    assert not any(pair.kjv.kjv == "Jesus wept." for pair in pairs)


def test_relation(book: list[Verse]) -> None:
    numbers = {verse[:3]: i for i, verse in enumerate(book)}
    pairs = VerseTasks(assign_splits(book, 1), "train", 1).relation()
    counts = [sum(pair.label == label for pair in pairs) for label in range(3)]
    assert max(counts) - min(counts) <= 1
    for pair in pairs:
        distance = numbers[pair.web[:3]] - numbers[pair.kjv[:3]]
        assert [distance == 0, distance == 1, abs(distance) > WINDOW][pair.label]
        assert pair.label != 1 or pair.kjv[:2] == pair.web[:2]


def test_four_way(made: Path, book: list[Verse]) -> None:
    web_of = {verse.kjv: verse.web for verse in book}
    letters = []
    for passage in passages(made / "four_way/train"):
        assert len(passage["article"].split()) <= 80
        assert len(passage["questions"]) == len(passage["options"]) == len(passage["answers"]) >= 1
        for question, options, answer in zip(passage["questions"], passage["options"], passage["answers"], strict=True):
            assert len(set(options)) == 4
            assert options["ABCD".index(answer)] == web_of[question]
            assert question in passage["article"]
            letters.append(answer)
    assert set(letters) == set("ABCD")


def test_baselines() -> None:
    def pair(kjv: str, web: str, label: int) -> Pair:
        return Pair(Verse("A", 1, 1, kjv, ""), Verse("A", 1, 2, "", web), label)

    separable = [pair("a b", "a b", 0), pair("a b", "a c", 1), pair("a b", "c d", 2)] * 3
    assert pair_overlap_accuracy(separable, separable, [2, 1, 0]) == 1.0
    # thresholds come from train
    assert pair_overlap_accuracy(separable, [pair("a b", "a b", 2), pair("a b", "c d", 2)], [2, 1, 0]) == 0.5
    assert majority([0, 0, 1]) == pytest.approx(2 / 3)
    book = assign_splits(invented_verses(), 1)
    assert four_way_overlap_accuracy(VerseTasks(book, "dev", 1).four_way()) > 0.9


def test_same_seed_same_files(tool: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    for seed, same in {1: True, 2: False}.items():
        other = tmp_path / f"seed{seed}"
        # from the cache this time
        result = tool("prepare_verse_pairs", "--output", other, "--cache", tmp_path / "cache", "--seed", seed)
        assert result.exit_code == 0, result
        for name in ("summary.json", "paraphrase/train.tsv", "relation/dev.tsv", "verses.jsonl"):
            assert ((other / name).read_bytes() == (made / name).read_bytes()) == same


def test_what_is_there_is_left_alone(tool: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    before = (made / "summary.json").stat().st_mtime_ns
    result = tool("prepare_verse_pairs", "--output", made)
    assert result.exit_code == 0
    assert "already there" in result.stdout
    assert (made / "summary.json").stat().st_mtime_ns == before
    tool("prepare_verse_pairs", "--output", made, "--seed", 5).assert_user_error("--seed 1", str(made))
    tool("prepare_verse_pairs", "--output", tmp_path).assert_user_error(f"--output {tmp_path}", "holds something else")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "made"]


def test_another_content(
    tool: Callable[..., Any], book: list[Verse], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verses_module, "VERSES_SHA256", "0" * 64)
    output = tmp_path / "out"
    tool("prepare_verse_pairs", "--output", output).assert_user_error("SHA-256", "--allow-other-version")
    assert not list(tmp_path.iterdir())
    assert tool("prepare_verse_pairs", "--output", output, "--allow-other-version").exit_code == 0


def test_missing_apt_and_wrong_modules(
    tool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    monkeypatch.setattr(shutil, "which", lambda program: None)
    result = tool("prepare_verse_pairs", "--output", output)
    result.assert_user_error("apt-get is missing", "sword-text-kjv", "--kjv")
    missing = tmp_path / "none"
    tool("prepare_verse_pairs", "--output", output, "--web", missing).assert_user_error(f"--web {missing}")
    with pytest.raises(ValueError, match=r"no mods\.d"):
        verses_module.read_module(tmp_path)
    (tmp_path / "mods.d").mkdir()
    with pytest.raises(ValueError, match="not one readable SWORD module"):
        verses_module.read_module(tmp_path)
    assert not output.exists()


def test_clean_markup() -> None:
    raw = (
        '<title type="psalm">A <w>Psalm</w>.</title> <l sID="g"/>“<w lemma="x">God</w><note n="a">Heb. <seg>x</seg>'
        '</note><w>created</w>,<note>or, made</note> the <transChange type="added">wide</transChange>'
        '<l eID="g"/><l sID="h"/>earth. ¶ The \\nd LORD<note>1</note><note>2</note>; <speaker>Lover</speaker> saw it. ”'
    )
    assert clean_markup(raw) == "“God created, the wide earth. The LORD; saw it.”"
    assert clean_markup('Amen. <milestone n="Glossary"/> <title>Glossary</title> of words') == "Amen."


def write_module(root: Path, texts: dict[tuple[str, int, int], str]) -> None:
    """A SWORD module with these verses of the Old Testament, in a single compressed block."""
    from pysword.books import BibleStructure

    structure = BibleStructure("kjv", ["ot"])
    records, block = {}, b""
    for (book, chapter, verse), text in texts.items():
        [index] = structure.ref_to_indicies(book, chapter, verse)["ot"]
        records[index] = struct.pack("<IIH", 0, len(block), len(text.encode()))
        block += text.encode()
    num_records = max(structure.ref_to_indicies()["ot"]) + 1
    packed = zlib.compress(block)
    data = root / "modules"
    data.mkdir(parents=True)
    (data / "ot.bzv").write_bytes(b"".join(records.get(i, bytes(10)) for i in range(num_records)))
    (data / "ot.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(block)))
    (data / "ot.bzz").write_bytes(packed)
    (root / "mods.d").mkdir()
    (root / "mods.d" / "toy.conf").write_text(
        "[Toy]\nDataPath=./modules/\nModDrv=zText\nSourceType=OSIS\nEncoding=UTF-8\nBlockType=BOOK\nCompressType=ZIP\n"
    )


def test_modules_are_read_and_aligned(tmp_path: Path) -> None:
    write_module(tmp_path / "kjv", {("Genesis", 1, 1): "In <w>the</w> beginning. ", ("Malachi", 4, 6): "And he."})
    write_module(tmp_path / "web", {("Genesis", 1, 1): "At first.", ("Genesis", 1, 2): "The earth."})
    found = verses_module.fetch_verses(tmp_path / "kjv", tmp_path / "web")
    assert found == [Verse("Genesis", 1, 1, "In the beginning.", "At first.")]
    assert verses_module.read_module(tmp_path / "kjv")["Malachi", 4, 6] == "And he."


def test_chapters_are_documents() -> None:
    verses = [Verse("A", 1, 1, "k1", "w1"), Verse("A", 1, 2, "k2", "w2"), Verse("A", 2, 1, "k3", "w3", "dev")]
    assert list(chapter_texts(verses, "train")) == ["k1 w1\nk2 w2"]
    assert list(chapter_texts(verses, "dev")) == ["k3 w3"]
