"""Weights are drawn by the prescription, as Megatron's are."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dslm_patches.hf import DslmBertConfig, DslmBertForMaskedLM, DslmBertForSequenceClassification
from dslm_patches.hf.convert import to_megatron
from megatron.dslm.arguments import parse_args
from megatron.dslm.huggingface.fields import config_fields
from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.hf.small import small

WORKERS = "tests.hf.hf_workers"
FLAGS = [
    *("--num-layers", "4", "--hidden-size", "64", "--num-attention-heads", "4", "--seq-length", "64", "--dslm"),
    *("--micro-batch-size", "2", "--train-iters", "1", "--lr", "1e-3"),
]


def test_weights_are_drawn_as_megatrons(ranks: RankPool, corpus: None) -> None:
    argv = [*FLAGS, *data_flags("bert")]
    args = parse_args("bert", argv)
    config = DslmBertConfig(**config_fields({**vars(args), "vocab_size": args.tokenizer.vocab_size}))
    torch.manual_seed(7)
    model = DslmBertForMaskedLM(config)
    theirs = ranks.run(1, f"{WORKERS}:weight_moments", argv=argv, model="bert")[0]
    ours = {n: (w.double().square().mean().item(), w.numel()) for n, w in to_megatron_weights(model, config).items()}
    assert len(ours) == len(theirs) - 2  # without pooler and binary head
    scores = []
    for name, (mean_square, count) in ours.items():
        expected, their_count = theirs[name]
        assert count == their_count
        # The mean square of n normal draws scatters by sqrt(2 / n) of the variance; QKV rows by their own.
        scores.append((mean_square - expected) / (expected * math.sqrt(4 / count)))
    stds = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "attention_output"}
    for index, layer in enumerate(model.bert.layers):
        weights = {role: getattr(layer.self_attn, name).weight for name, role in stds.items()}
        weights |= {"ffn_up": layer.mlp.up_proj.weight, "ffn_down": layer.mlp.down_proj.weight}
        for role, weight in weights.items():
            variance = config.layer_std(role, index) ** 2
            scores.append((weight.double().square().mean().item() / variance - 1.0) / math.sqrt(2 / weight.numel()))
    tables = model.bert.embeddings
    outside = {
        "word_embedding": tables.word_embeddings,
        "position_embedding": tables.position_embeddings,
        "tokentype_embedding": tables.token_type_embeddings,
        "lm_head_transform": model.cls.predictions.transform.dense,
    }
    for role, module in outside.items():
        variance = config.model_std(role) ** 2
        scores.append(
            (module.weight.double().square().mean().item() / variance - 1) / math.sqrt(2 / module.weight.numel())
        )
    assert max(map(abs, scores)) < 4.0
    assert 0.5 < math.sqrt(sum(score**2 for score in scores) / len(scores)) < 1.5
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.all(parameter == (1.0 if name.endswith("norm.weight") else 0.0)), name


def to_megatron_weights(model: Any, config: Any) -> dict[str, torch.Tensor]:
    return {name: one for name, one in to_megatron(model.state_dict(), config).items() if one.dim() == 2}


def test_a_new_classifier_is_drawn_by_the_prescription(tmp_path: Path) -> None:
    small(DslmBertForMaskedLM, depth_scheme="megatron", init_method_std=0.3).save_pretrained(tmp_path)
    model = DslmBertForSequenceClassification.from_pretrained(tmp_path, num_labels=200)
    assert model.classifier.weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert model.bert.pooler.dense.weight.std().item() == pytest.approx(0.3, rel=0.15)
    assert torch.all(model.classifier.bias == 0)
    assert torch.equal(
        model.bert.layers[0].mlp.up_proj.weight,
        DslmBertForMaskedLM.from_pretrained(tmp_path).bert.layers[0].mlp.up_proj.weight,
    )
