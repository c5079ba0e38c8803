"""Settings that BERT alone has."""

from dataclasses import dataclass

from megatron.dslm.config.setting import PROBABILITY, OnResume, setting


@dataclass(frozen=True, kw_only=True)
class BertModelConfig:
    """BERT"""

    bert_no_binary_head: bool = setting(OnResume.NEVER, False)
    """masked LM alone, no next-sentence head"""


@dataclass(frozen=True, kw_only=True)
class BertDataConfig:
    """BERT's samples"""

    mask_prob: float = setting(OnResume.BY_NAME, 0.15, bounds=PROBABILITY)
    """share of tokens that are predicted"""
    short_seq_prob: float = setting(OnResume.BY_NAME, 0.1, bounds=PROBABILITY)
    """share of shorter sequences"""
