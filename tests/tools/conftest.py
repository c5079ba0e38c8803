"""Runs a command-line tool inside the test process, as starting one costs seconds of imports."""

import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class ToolResult(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str

    def assert_user_error(self, *words: str) -> None:
        """Exit code 2 and one line on stderr that holds each of `words`."""
        assert self.exit_code == 2, self
        assert self.stderr.count("\n") == 1, self.stderr
        for word in words:
            assert word in self.stderr, self.stderr


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., ToolResult]:
    """`tool(name, *arguments, stdin=b"")` runs tools/name.py with these arguments."""

    def run(name: str, *arguments: object, stdin: bytes = b"") -> ToolResult:
        path = TOOLS / f"{name}.py"
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        module = runpy.run_path(str(path), run_name="tool_under_test")
        with pytest.raises(SystemExit) as stop:
            module["run_tool"](module["main"])
        captured = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return ToolResult(stop.value.code, captured.out, captured.err)

    return run
