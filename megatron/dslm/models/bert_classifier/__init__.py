"""BERT with a head on its pooler, for fine-tuning tasks."""

from typing import Final

ENCODER: Final = "bert"
"""The family whose checkpoints it starts from."""
