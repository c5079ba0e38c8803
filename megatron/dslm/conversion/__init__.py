"""Checkpoints to Hugging Face folders and back."""

from megatron.dslm.conversion.checkpoints import BERT_CLASSES, GPT_CLASSES, to_huggingface, to_megatron

__all__ = ["BERT_CLASSES", "GPT_CLASSES", "to_huggingface", "to_megatron"]
