"""BERT: masked LM and next-sentence prediction."""

import json
import os
from argparse import Namespace
from typing import Any

import numpy as np

from dslm_patches.errors import UserError
from dslm_patches.schemes import WeightRole
from megatron.dslm.models.bert.documents import DocumentCounts, describe_unused, usable_documents
from megatron.dslm.models.bert.settings import BertDataConfig, BertModelConfig
from megatron.dslm.models.family import Family

_SHORTEST = 8
"""Tokens of [CLS] A [SEP] B [SEP] with a few in each of A and B."""


class _Bert(Family):
    name, title, causal = "bert", "BERT", False
    model_settings, data_settings = (BertModelConfig,), (BertDataConfig,)
    tokenizer_types = ("BertWordPieceLowerCase", "BertWordPieceCase")
    published_vocabulary = 30522
    hf_name = "Bert"
    hf_classes = ("ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice", "Model")

    def check(self, args: Namespace) -> None:
        if args.seq_length < _SHORTEST:
            raise UserError(
                f"--seq-length {args.seq_length} is too short for [CLS] A [SEP] B [SEP]: give {_SHORTEST} or more"
            )
        if getattr(args, "mask_prob", None) == 0.0:
            raise UserError("--mask-prob must be above 0: masked LM needs tokens to predict")

    def has_segments(self, args: Namespace) -> bool:
        return not args.bert_no_binary_head

    def head_roles(self, args: Namespace) -> list[WeightRole]:
        pair = [] if args.bert_no_binary_head else [WeightRole.POOLER, WeightRole.BINARY_HEAD]
        return [WeightRole.LM_HEAD_TRANSFORM, *pair]

    def head_products(self, args: Namespace) -> float:
        width = args.hidden_size
        return args.mask_prob * (width * args.tokenizer.vocab_size + width**2)

    def units(self, lengths: np.ndarray, ends: np.ndarray) -> int:
        """Its documents."""
        return len(ends) - 1

    def check_documents(
        self, lengths: np.ndarray, ends: np.ndarray, begin: int, end: int, split: str, source: str, args: Namespace
    ) -> DocumentCounts | None:
        if split != "train" and not args.eval_iters:
            return None
        return usable_documents(lengths, ends, begin, end, split, source, args)

    def describe_unused(self, counts: dict[str, DocumentCounts]) -> str:
        return describe_unused(counts)

    def upgrade(self, saved: dict[str, Any]) -> None:
        if "data_order" not in saved:
            saved["rotary_base"] = 10000  # what an earlier version's BERT had, whatever its flag said

    def objective(self, saved: dict[str, Any]) -> str:
        return "masked LM" + ("" if saved["bert_no_binary_head"] else " and next-sentence prediction")

    def hf_class(self, saved: dict[str, Any]) -> str:
        return "ForMaskedLM" if saved["bert_no_binary_head"] else "ForPreTraining"

    def hf_fields(self, saved: dict[str, Any]) -> dict[str, Any]:
        return {"type_vocab_size": 0 if saved["bert_no_binary_head"] else 2}

    def hf_arguments(self, fields: dict[str, Any], folder: str, flag: str) -> dict[str, Any]:
        types = fields["type_vocab_size"]
        if types not in (0, 2):
            raise UserError(f"{flag}: {folder} has type_vocab_size {types}: Megatron's BERT has 2 or none")
        return {"bert_no_binary_head": types == 0, "tokenizer_type": _tokenizer_type(folder)}


def _tokenizer_type(folder: str) -> str:
    path = os.path.join(folder, "tokenizer_config.json")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            if json.load(file).get("do_lower_case") is False:
                return "BertWordPieceCase"
    return "BertWordPieceLowerCase"


FAMILY = _Bert()
