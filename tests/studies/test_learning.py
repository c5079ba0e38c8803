"""A deep model learns more than how often tokens come, and the tracer has nothing to say against it."""

from pathlib import Path

import pytest

from studies.runs import train
from studies.small_models import Setting, run_of

MARGIN = 0.1
"""Nats below the unigrams."""


@pytest.mark.slow
def test_24_layers_learn_and_no_alert_is_told(corpus: None, tmp_path: Path) -> None:
    run = run_of(Setting("bert", 24, 80, sequences=16, evaluations=2), "dslm-k0.5", "1e-2")
    result = train(run, tmp_path)
    assert result.unigrams is not None
    assert result.last < result.unigrams - MARGIN
    assert "warning" not in (tmp_path / run.name / "log.txt").read_text()
