"""GPT: next-token prediction."""

from argparse import Namespace
from typing import Any

from dslm_patches.schemes import WeightRole
from megatron.dslm.models.family import Family


class _Gpt(Family):
    name, title, causal = "gpt", "GPT", True
    tokenizer_types = ("GPT2BPETokenizer", "BertWordPieceLowerCase", "BertWordPieceCase")
    published_vocabulary = 50257
    hf_name, hf_classes = "GPT", ("ForCausalLM", "Model")

    def head_roles(self, args: Namespace) -> list[WeightRole]:
        return []

    def head_products(self, args: Namespace) -> float:
        return args.hidden_size * args.tokenizer.vocab_size

    def objective(self, saved: dict[str, Any]) -> str:
        return "next-token prediction"

    def hf_class(self, saved: dict[str, Any]) -> str:
        return "ForCausalLM"

    def hf_arguments(self, fields: dict[str, Any], folder: str, flag: str) -> dict[str, Any]:
        return {"tokenizer_type": "GPT2BPETokenizer"}


FAMILY = _Gpt()
