"""trace.jsonl keeps every digit, goes on after a cut, and says what is wrong with a file that is none."""

import json
from pathlib import Path

import numpy as np
import pytest

from dslm_patches.tracing.record import TraceRecord, WeightStatistics
from dslm_patches.tracing.trace_file import Prediction, TraceHeader, TraceWriter, read_header, read_records
from tests.tracing.test_alerts import record

HEADER = TraceHeader("BERT 24 x 8", 24, ["layer"], Prediction(*(np.arange(24) / 3 for _ in range(4)), 0.1, 0.2, 0.03))


def step(iteration: int) -> TraceRecord:
    variance = np.random.default_rng(iteration).random(24)
    variance[3] = np.nan
    sites = record(layer={"activation": {"variance": variance}}).sites
    return TraceRecord(iteration, sites, {"w": WeightStatistics(*(variance * n for n in range(5)))})


def test_records_come_back_to_the_last_digit(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "new", HEADER)
    for iteration in (1, 10):
        writer.write(step(iteration))
    back = list(read_records(tmp_path / "new"))
    assert [one.iteration for one in back] == [1, 10]
    assert [one.as_json() for one in back] == [step(1).as_json(), step(10).as_json()]
    np.testing.assert_array_equal(
        back[0].sites["layer"].activation.variance, step(1).sites["layer"].activation.variance
    )
    header = read_header(tmp_path / "new")
    assert header.as_json() == HEADER.as_json()
    assert "NaN" not in (tmp_path / "new" / "trace.jsonl").read_text(), "JSON has no NaN"


def test_a_run_that_goes_on_drops_what_it_will_write_again(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path, HEADER)
    for iteration in (1, 5, 10, 15):
        writer.write(step(iteration))
    with (tmp_path / "trace.jsonl").open("a") as file:
        file.write('{"iteration": 20, "si')  # killed while it wrote
    assert [one.iteration for one in read_records(tmp_path)] == [1, 5, 10, 15]
    other = TraceHeader("another", 24, ["layer"])
    TraceWriter(tmp_path, other, after=10).write(step(15))
    assert [one.iteration for one in read_records(tmp_path)] == [1, 5, 10, 15]
    assert read_header(tmp_path).title == HEADER.title
    TraceWriter(tmp_path, other)
    assert list(read_records(tmp_path)) == []
    assert read_header(tmp_path).title == "another"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("not json\n", "line 1"),
        ("[1]\n", "line 1: not a trace"),
        ('{"trace": 99}\n', "format 99"),
        ('{"title": "x"}\n', "not the header of a trace"),
    ],
)
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "trace.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_header(tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text(json.dumps(HEADER.as_json()) + '\n{"iteration": 1}\n')
    with pytest.raises(ValueError, match="line 2: not a traced step"):
        list(read_records(tmp_path))
