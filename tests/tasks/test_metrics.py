"""The metrics against scikit-learn's and SciPy's on random predictions."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from megatron.dslm.tasks import metrics


@pytest.mark.parametrize("seed", range(5))
def test_classes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 97).astype(float)
    predictions = np.where(generator.random(97) < 0.7, labels, 1 - labels)
    assert metrics.accuracy(predictions, labels) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    assert metrics.f1(predictions, labels) == pytest.approx(sklearn_metrics.f1_score(labels, predictions))
    expected = sklearn_metrics.matthews_corrcoef(labels, predictions)
    assert metrics.matthews(predictions, labels) == pytest.approx(expected)
    three = generator.integers(0, 3, (2, 50)).astype(float)
    assert metrics.accuracy(*three) == pytest.approx(sklearn_metrics.accuracy_score(three[1], three[0]))


@pytest.mark.parametrize("seed", range(5))
def test_scores(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 6, 80) * 1.0  # with ties, as STS-B has
    predictions = labels + generator.normal(size=80)
    assert metrics.pearson(predictions, labels) == pytest.approx(stats.pearsonr(predictions, labels).statistic)
    assert metrics.spearman(predictions, labels) == pytest.approx(stats.spearmanr(predictions, labels).statistic)


def test_a_single_class_is_zero_and_no_error() -> None:
    ones, labels = np.ones(4), np.array([0.0, 1.0, 1.0, 0.0])
    assert metrics.matthews(ones, labels) == sklearn_metrics.matthews_corrcoef(labels, ones) == 0.0
    assert metrics.f1(np.zeros(4), np.zeros(4)) == 0.0
    assert metrics.pearson(ones, labels) == 0.0
