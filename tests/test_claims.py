"""docs/testing.md names for each claim tests that exist, one of them in the short run at least."""

import ast
import re

import pytest

from tests.corpus import ROOT

ROWS = [
    line.strip("|").split("|")
    for line in (ROOT / "docs" / "testing.md").read_text().splitlines()
    if line.startswith("| ") and "::" in line
]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions(path: str) -> dict[str, bool]:
    """The test functions of a file, and whether the short run leaves them out."""
    tree = ast.parse((ROOT / path).read_text())
    whole = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and "slow" in ast.unparse(node)
        for node in tree.body
    )
    return {
        node.name: whole or any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def test_there_are_claims() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip() for row in ROWS])
def test_a_claims_tests_exist_and_one_is_short(row: list[str]) -> None:
    assert len(row) == 3
    for column, is_slow in ((row[1], False), (row[2], True)):
        for path, name in REFERENCE.findall(column):
            found = functions(path)
            assert name in found, f"{path} has no {name}"
            assert found[name] is is_slow, f"{path}::{name} stands in the wrong column"
    assert REFERENCE.search(row[1]), "no test of the short run"
