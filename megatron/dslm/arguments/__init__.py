"""Command-line arguments of the entry points: Megatron-LM's names, checked before anything heavy is imported."""

from megatron.dslm.arguments.parse import parse_args

__all__ = ["parse_args"]
