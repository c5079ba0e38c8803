"""`dslm trace`: pictures and comparisons from trace files, and one line for a mistake."""

import json
from pathlib import Path

import pytest

from dslm_patches.tracing.trace_file import TraceWriter
from megatron.dslm.cli.main import main
from tests.tracing.test_trace_file import HEADER, step


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs; iteration 20 is in the first one alone."""
    for name, iterations in (("a", (1, 10, 20)), ("b", (1, 10))):
        writer = TraceWriter(tmp_path / name, HEADER)
        for iteration in iterations:
            writer.write(step(iteration))
    return tmp_path / "a", tmp_path / "b"


def test_plot_draws_beside_the_trace(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "plot", str(runs[0])]) == 0
    assert (runs[0] / "variance_against_depth.png").stat().st_size > 10_000
    output = capsys.readouterr().out
    assert "3 traced steps, iterations 1 to 20" in output
    assert "iteration 20" in output
    assert "growth" in output


def test_plot_takes_iterations_and_a_file(runs: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--iterations", "1", "20", "--plot", f"{tmp_path}/x.svg", "--json", f"{tmp_path}/x.json"]
    assert main(["trace", "plot", str(runs[0] / "trace.jsonl"), *words]) == 0
    content = json.loads((tmp_path / "x.json").read_text())
    assert [one["iteration"] for one in content["steps"]] == [1, 20]
    assert "iteration 20" in (tmp_path / "x.svg").read_text()
    assert not (runs[0] / "variance_against_depth.png").exists()


def test_compare_takes_the_last_common_iteration(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "compare", *map(str, runs), "--plot", f"{tmp_path}/ab.png"]) == 0
    output = capsys.readouterr().out
    assert "iteration 10" in output
    assert "iteration 20" not in output
    assert "variance B/A 1 at most" in output, "both runs measured the same"
    assert (tmp_path / "ab.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plot", "{tmp}/nowhere"], "nowhere holds no trace"),
        (["plot", "{a}", "--iterations", "11"], "has no traced iteration 11: it has 1, 10, 20"),
        (["plot", "{a}", "--plot", "{tmp}/x.gif"], "--plot"),
        (["compare", "{a}", "{b}", "--iteration", "20"], "has no traced iteration 20: it has 1, 10"),
        (["compare", "{a}"], "RUN_B"),
        ([], "ACTION"),
    ],
)
def test_mistakes_are_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    filled = [word.format(a=runs[0], b=runs[1], tmp=tmp_path) for word in words]
    with pytest.raises(SystemExit) as end:
        main(["trace", *filled])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.count("\n") == 1
    assert message in error
