"""Vocabulary, corpus, and the files of a task."""

from dataclasses import dataclass

from megatron.dslm.config.setting import NOT_NEGATIVE, POSITIVE, OnResume, setting
from megatron.dslm.tasks import TASKS

NEVER, BY_NAME, FREE = OnResume.NEVER, OnResume.BY_NAME, OnResume.FREE


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """tokenizer"""

    tokenizer_type: str = setting(
        NEVER, None, choices=("BertWordPieceLowerCase", "BertWordPieceCase", "GPT2BPETokenizer")
    )
    """default BertWordPieceLowerCase for a BERT, GPT2BPETokenizer for a GPT"""
    vocab_file: str = setting(NEVER)
    """vocab.txt of WordPiece, or encoder json of GPT-2 BPE"""
    merge_file: str = setting(NEVER, None)
    """merges of GPT-2 BPE"""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """data"""

    data_path: list[str] = setting(BY_NAME, None)
    """prefix of .bin/.idx, or weight prefix weight prefix ..."""
    split: str = setting(BY_NAME, None)
    """shares of train, validation and test in --data-path; default 969,30,1"""
    train_data_path: list[str] = setting(BY_NAME, None)
    """in place of --data-path"""
    valid_data_path: list[str] = setting(BY_NAME, None)
    """as --train-data-path, for validation"""
    test_data_path: list[str] = setting(BY_NAME, None)
    """as --train-data-path, for the test at the end"""
    data_cache_path: str = setting(FREE, None)
    """where sample indices are kept; default beside the data"""


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """task"""

    task: str = setting(NEVER, choices=tuple(TASKS))
    """what to fine-tune on"""
    train_data: list[str] = setting(BY_NAME, None, metavar="PATH")
    """training files in the task's own format (RACE: folders)"""
    valid_data: list[str] = setting(BY_NAME, None, metavar="PATH")
    """evaluated after each epoch, each by itself"""
    test_data: list[str] = setting(FREE, None, metavar="PATH")
    """predicted at the end by the best checkpoint"""
    epochs: int = setting(FREE, None, bounds=NOT_NEGATIVE)
    """passes over the training data; 0 evaluates alone; default 3"""
    train_samples: int = setting(FREE, None, bounds=POSITIVE)
    """so many samples in place of --epochs, shuffled anew at the end of the data"""
    group_by_length: bool = setting(BY_NAME, False)
    """batches of samples about equally long: less padding"""
    eval_interval: int = setting(FREE, None, bounds=POSITIVE)
    """iterations between evaluations; default an epoch"""
    output_dir: str = setting(FREE, None)
    """metrics.json, predictions and GLUE's submission go there; default --save"""
