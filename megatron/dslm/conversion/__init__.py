"""Checkpoints to Hugging Face folders and back."""

from megatron.dslm.conversion.checkpoints import to_huggingface, to_megatron
from megatron.dslm.conversion.classes import BERT_CLASSES, GPT_CLASSES

__all__ = ["BERT_CLASSES", "GPT_CLASSES", "to_huggingface", "to_megatron"]
