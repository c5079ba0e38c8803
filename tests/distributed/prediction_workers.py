"""Predictions held against real models, from inside a rank."""

from typing import Any

from scripts.compare_prediction import Case, Size, compare


def compare_case(
    model: str, num_layers: int, norm_placement: str, activation: str, dropout: float, scheme: str, seeds: int
) -> dict[str, Any]:
    """The largest gaps over the layers of one model 256 wide."""
    return compare(Case(model, num_layers, norm_placement, activation, dropout, scheme), Size(), seeds)
