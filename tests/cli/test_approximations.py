"""`dslm approximations`: the exact curves against quadrature and known values, and the errors that are told."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from megatron.dslm.cli.approximations import compare
from megatron.dslm.cli.main import main


def by_quadrature(r: float, centred: bool) -> float:
    """Correlation of ReLU outputs of standard normals of correlation r, by a fine grid over both."""
    x = np.linspace(-8.0, 8.0, 2001)
    density = np.exp(-0.5 * x**2)
    weights = density / density.sum()
    z = np.maximum(r * x[:, None] + np.sqrt(1.0 - r**2) * x[None, :], 0.0)
    relu = np.maximum(x, 0.0)
    mean, square, product = weights @ relu, weights @ relu**2, (weights * relu) @ z @ weights
    shift = mean**2 if centred else 0.0
    return float((product - shift) / (square - shift))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("r", [0.0, 0.25, 0.6, 0.9])
def test_the_exact_curves_are_right(index: int, r: float) -> None:
    one = compare()[index]
    at = int(np.abs(one.r - r).argmin())
    assert one.exact[at] == pytest.approx(by_quadrature(float(one.r[at]), centred=index == 0), abs=2e-4)


def test_ends_are_exact_and_errors_are_within_what_the_authors_tell() -> None:
    for one in compare():
        assert one.exact[[0, -1]] == pytest.approx(one.approximate[[0, -1]], abs=1e-12)
        assert one.exact[-1] == pytest.approx(1.0)
        assert 0.003 < abs(one.error[one.worst]) < 0.01
        assert abs(one.error[one.worst]) == np.abs(one.approximate - one.exact).max()


def test_what_is_printed_is_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["approximations", "--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / "a.json").read_text())
    for line, (name, one) in zip(lines, written.items(), strict=False):
        found = re.match(r"(\w+): .* is off by ([+-][\d.]+) at most, at r = ([\d.]+)", line)
        assert found is not None, line
        error = np.array(one["approximate"]) - np.array(one["exact"])
        worst = int(np.abs(error).argmax())
        assert found[1] == name
        assert float(found[2]) == pytest.approx(error[worst], abs=1e-5) == one["largest_error"]
        assert float(found[3]) == pytest.approx(one["r"][worst]) == one["at"]
    drawing = (tmp_path / "a.svg").read_text()
    assert drawing.startswith("<?xml")
