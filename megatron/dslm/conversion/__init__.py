"""Checkpoints to Hugging Face folders and back."""

from megatron.dslm.conversion.checkpoints import to_huggingface, to_megatron

__all__ = ["to_huggingface", "to_megatron"]
