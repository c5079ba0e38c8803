"""The metrics of GLUE and RACE, equal to scikit-learn's and SciPy's."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def accuracy(predictions: Values, labels: Values) -> float:
    """Share of predictions that are right."""
    return float(np.mean(predictions == labels))


def f1(predictions: Values, labels: Values) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where neither has it."""
    hits = np.sum((predictions == 1) & (labels == 1))
    total = np.sum(predictions == 1) + np.sum(labels == 1)
    return float(2 * hits / total) if total else 0.0


def matthews(predictions: Values, labels: Values) -> float:
    """Matthews correlation of two classes; 0 where one side has a single class."""
    return pearson((predictions == 1).astype(np.float64), (labels == 1).astype(np.float64))


def pearson(predictions: Values, labels: Values) -> float:
    """Linear correlation; 0 where one side is constant."""
    a, b = predictions - predictions.mean(), labels - labels.mean()
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / scale) if scale > 0 else 0.0


def spearman(predictions: Values, labels: Values) -> float:
    """Linear correlation of the ranks, ties sharing their mean rank."""
    return pearson(_ranks(predictions), _ranks(labels))


def _ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[place]
