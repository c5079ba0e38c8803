"""Each task's files, written by hand in their original formats with all that goes wrong in them."""

import json
from pathlib import Path

import pytest

from megatron.dslm.tasks import TASKS, Example

MNLI_PARSES = [f"sentence{number}_{kind}parse" for kind in ("binary_", "") for number in (1, 2)]
MNLI_PARSES = [f"sentence{number}_{kind}parse" for kind in ("binary_", "") for number in (1, 2)]
MNLI_COLUMNS = ["index", "promptID", "pairID", "genre", *MNLI_PARSES, "sentence1", "sentence2", "label1", "gold_label"]


def write(path: Path, lines: list[str], end: str = "\n") -> str:
    """A file of the given lines."""
    path.write_bytes("".join(line + end for line in lines).encode())
    return str(path)


def row(**fields: str) -> str:
    """A row of MNLI with the given fields, the others empty."""
    return "\t".join(fields.get(column, "") for column in MNLI_COLUMNS)


def test_mnli_with_quotes_crlf_and_rows_without_gold_label(tmp_path: Path) -> None:
    lines = [
        "\t".join(MNLI_COLUMNS),
        row(index="0", sentence1='He said "no".', sentence2="It's a naïve café", gold_label="neutral"),
        row(index="1", sentence1='"Unbalanced', sentence2="", gold_label="entailment"),
        row(index="2", sentence1="a", sentence2="b", gold_label="-"),
        row(index="3", sentence1="日本", sentence2="c", gold_label="contradiction"),
    ]
    examples, notes = TASKS["MNLI"].read(write(tmp_path / "dev_matched.tsv", lines, "\r\n"))
    assert examples == [
        Example("0", (('He said "no".', "It's a naïve café"),), 2.0),
        Example("1", (('"Unbalanced', ""),), 1.0),
        Example("2", (("a", "b"),), None),
        Example("3", (("日本", "c"),), 0.0),
    ]
    assert len(notes) == 1
    assert "1 rows have the label '-'" in notes[0]


def test_qqp_with_tabs_in_quotes_and_broken_rows(tmp_path: Path) -> None:
    lines = [
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "7\t1\t2\tWhy?\tHow?\t0",
        '8\t3\t4\t"A\ttab"\tNone\t1',
        "9\t5\t6\tcut short",
        "10\t7\t8\tone\ttab\ttoo many\t1",
        '11\t9\t10\t"quoted"\tas it stands\t1',
    ]
    examples, notes = TASKS["QQP"].read(write(tmp_path / "train.tsv", lines))
    assert [(one.id, one.texts[0], one.label) for one in examples] == [
        ("7", ("Why?", "How?"), 0.0),
        ("8", ("A\ttab", "None"), 1.0),
        ("11", ('"quoted"', "as it stands"), 1.0),
    ]
    assert notes == [f"{tmp_path}/train.tsv: 2 rows without 6 columns left out (the first on line 4)"]
    test = write(tmp_path / "test.tsv", ["id\tquestion1\tquestion2", "0\ta\tb"])
    assert TASKS["QQP"].read(test) == ([Example("0", (("a", "b"),), None)], [])


@pytest.mark.parametrize(
    ("task", "lines", "expected"),
    [
        ("SST-2", ["sentence\tlabel", "fine film \t1"], Example("0", (("fine film ", None),), 1.0)),
        ("SST-2", ["index\tsentence", "4\tdull"], Example("4", (("dull", None),), None)),
        ("CoLA", ["gj04\t0\t*\tThey drank the pub."], Example("0", (("They drank the pub.", None),), 0.0)),
        ("CoLA", ["index\tsentence", "0\tBill whistled."], Example("0", (("Bill whistled.", None),), None)),
        (
            "MRPC",
            ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t10\t11\tHe "said" so\tSo he said'],
            Example("0", (('He "said" so', "So he said"),), 1.0),
        ),
        (
            "STS-B",
            [
                "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
                "0\tnews\tf\t2012\t1\ts\ts\tA plane.\tAn air plane.\t4.750",
            ],
            Example("0", (("A plane.", "An air plane."),), 4.75),
        ),
        (
            "RTE",
            ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tnot_entailment"],
            Example("0", (("a", "b"),), 1.0),
        ),
        (
            "QNLI",
            ["index\tquestion\tsentence\tlabel", "3\tq\ts\tentailment"],
            Example("3", (("q", "s"),), 0.0),
        ),
    ],
)
def test_the_rest_of_glue(tmp_path: Path, task: str, lines: list[str], expected: Example) -> None:
    assert TASKS[task].read(write(tmp_path / "x.tsv", lines)) == ([expected], [])


@pytest.mark.parametrize(
    ("task", "lines", "named"),
    [
        ("QQP", ["id\tq1\tq2", "0\ta\tb"], ["x.tsv", "no column question1, question2", "found id, q1, q2"]),
        ("QQP", ["id\tquestion1\tquestion2\tis_duplicate", "0\ta\tb\t2"], ["line 2", "is_duplicate '2'", "0, 1"]),
        ("RTE", ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tyes"], ["line 2", "'yes'", "not_entailment"]),
        ("STS-B", ["index\tsentence1\tsentence2\tscore", "0\ta\tb\t5.5"], ["line 2", "'5.5'", "from 0 to 5"]),
        ("STS-B", ["index\tsentence1\tsentence2\tscore", "0\ta\tb\tnan"], ["line 2", "'nan'"]),
        ("CoLA", ["one column"], ["x.tsv", "sentence", "4 columns"]),
        ("MNLI", ["index\tsentence1\tsentence2\tgold_label"], ["x.tsv", "no rows"]),
        ("MNLI", [], ["x.tsv", "empty"]),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, task: str, lines: list[str], named: list[str]) -> None:
    path = write(tmp_path / "x.tsv", lines)
    with pytest.raises(ValueError, match=r"x\.tsv") as error:
        TASKS[task].read(path)
    for part in named:
        assert part in str(error.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"id\tquestion1\n\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        TASKS["QQP"].read(str(path))


def passage(**changes: object) -> str:
    """A RACE file as JSON."""
    content = {
        "article": "Once upon\n a time.",
        "questions": ["The writer likes _ most.", "What is it?"],
        "options": [["tea", "milk", "water", "wine"], ["a", "b", "c", ""]],
        "answers": ["B", "D"],
        "id": "high1.txt",
    }
    return json.dumps(content | changes)


def test_race(tmp_path: Path) -> None:
    for level in ("middle", "high"):
        (tmp_path / "dev" / level).mkdir(parents=True)
        (tmp_path / "dev" / level / "10.txt").write_text(passage(id=f"{level}10.txt"))
    (tmp_path / "dev" / "high" / "9.txt").write_text(passage(id="high9.txt", answers=None))
    examples, _ = TASKS["RACE"].read(str(tmp_path / "dev"))
    assert [one.id for one in examples] == [
        f"{name}.txt-{n}" for name in ("middle10", "high9", "high10") for n in (0, 1)
    ]
    assert [one.group for one in examples] == ["middle"] * 2 + ["high"] * 4
    assert [one.label for one in examples] == [1.0, 3.0, None, None, 1.0, 3.0]
    assert examples[0].texts[1] == ("Once upon a time.", "The writer likes milk most.")
    assert examples[1].texts[2:] == (("Once upon a time.", "What is it? c"), ("Once upon a time.", "What is it?"))
    only, _ = TASKS["RACE"].read(str(tmp_path / "dev" / "middle"))
    assert [one.id for one in only] == ["middle10.txt-0", "middle10.txt-1"]
    assert only[0].group == "middle"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not JSON"),
        ("[]", "no article, questions, options; found list"),
        (passage(options=[["a", "b", "c", "d"]]), "not equally many"),
        (passage(questions=[]), "not equally many"),
        (passage(article=["Once"]), "expected a text as article"),
        (passage(questions="What?"), "lists of texts"),
        (passage(options=[["a", "b", "c", 4], ["a", "b", "c", "d"]]), "lists of texts"),
        (passage(options=[["a", "b", "c"], ["a", "b", "c", "d"]]), "question 0 has 3 options"),
        (passage(answers=["A", "E"]), "the answer 'E' of question 1 is none of A, B, C, D"),
    ],
)
def test_a_wrong_race_file(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "1.txt").write_text(content)
    with pytest.raises(ValueError, match=r"1\.txt") as error:
        TASKS["RACE"].read(str(tmp_path))
    assert named in str(error.value)


def test_no_race_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        TASKS["RACE"].read(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"no \.txt files"):
        TASKS["RACE"].read(str(tmp_path))
