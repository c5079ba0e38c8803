"""transformers' Trainer on the models, with real text."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast, Trainer, TrainingArguments

from dslm_patches.hf import DslmBertConfig, DslmBertForMaskedLM, DslmBertForSequenceClassification
from dslm_patches.hf.export import _write_tokenizer
from megatron.dslm.conversion.tokenizers import tokenizer_files
from megatron.dslm.data.tokenizer import build_tokenizer
from tests.corpus import FOLDER

pytestmark = pytest.mark.usefixtures("corpus")
LENGTH = 32


@pytest.fixture
def config() -> DslmBertConfig:
    return DslmBertConfig(
        vocab_size=4096,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )


@pytest.fixture
def tokenizer(config: DslmBertConfig, tmp_path: Path) -> Any:
    vocabulary = f"{FOLDER}/bert-vocab.txt"
    files = tokenizer_files(build_tokenizer("BertWordPieceLowerCase", vocabulary), vocabulary, None)
    _write_tokenizer(files, config, tmp_path)
    return PreTrainedTokenizerFast.from_pretrained(tmp_path)


@pytest.fixture
def sentences() -> list[str]:
    with open(FOLDER / "wikipedia.jsonl", encoding="utf-8") as file:
        texts = [json.loads(next(file))["text"] for _ in range(6)]
    return [part for text in texts for part in text.split(". ") if 40 < len(part) < 300][:160]


def train(model: Any, data: list[dict[str, Any]], folder: Path, **parts: Any) -> list[float]:
    """The losses of twelve steps, one each."""
    arguments = TrainingArguments(
        output_dir=str(folder / "run"),
        max_steps=12,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_steps=12,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, **parts)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_masked_lm_learns(config: DslmBertConfig, tokenizer: Any, sentences: list[str], tmp_path: Path) -> None:
    data = [tokenizer(one, truncation=True, max_length=LENGTH) for one in sentences]
    torch.manual_seed(0)
    model = DslmBertForMaskedLM(config)
    losses = train(model, data, tmp_path, data_collator=DataCollatorForLanguageModeling(tokenizer))
    print("masked LM losses", [round(one, 3) for one in losses])
    assert len(losses) == 12
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.3
    saved = DslmBertForMaskedLM.from_pretrained(tmp_path / "run" / "checkpoint-12")
    assert torch.equal(saved.bert.final_layernorm.weight, model.bert.final_layernorm.weight)


@pytest.mark.slow
def test_classification_learns(config: DslmBertConfig, tokenizer: Any, sentences: list[str], tmp_path: Path) -> None:
    """Whether the sentence's words stand in their order."""
    data = []
    for index, one in enumerate(sentences):
        words = one.split() if index % 2 else sorted(one.split())
        encoded = tokenizer(" ".join(words), truncation=True, max_length=LENGTH, padding="max_length")
        data.append({**encoded, "labels": index % 2})
    torch.manual_seed(0)
    model = DslmBertForSequenceClassification(config)
    losses = train(model, data, tmp_path)
    print("classification losses", [round(one, 3) for one in losses])
    assert len(losses) == 12
    assert min(losses[6:]) < losses[0]
    assert model.config.problem_type == "single_label_classification"
