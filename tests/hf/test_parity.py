"""Checkpoints of any layout against what they become for Hugging Face: the same logits, and back the same bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dslm_patches.hf import (
    DslmBertConfig,
    DslmBertForMaskedLM,
    DslmBertForMultipleChoice,
    DslmBertForPreTraining,
    DslmBertForSequenceClassification,
    DslmGPTForCausalLM,
)
from megatron.dslm.data.tokenizer import build_tokenizer
from tests.corpus import FOLDER, data_flags
from tests.distributed.pool import RankPool
from tests.marks import slow_but

pytestmark = pytest.mark.usefixtures("corpus")
WORKERS = "tests.hf.hf_workers"
LENGTH = 48
FLAGS = [
    *("--num-layers", "4", "--hidden-size", "64", "--num-attention-heads", "4", "--seq-length", "64"),
    *("--micro-batch-size", "2", "--train-iters", "1", "--lr", "1e-3"),
]
LAYOUT = ["--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "2"]
FILES: dict[str, dict[str, str | None]] = {
    "bert": {"vocab_file": f"{FOLDER}/bert-vocab.txt", "merge_file": None},
    "gpt": {"vocab_file": f"{FOLDER}/gpt-vocab.json", "merge_file": f"{FOLDER}/gpt-merges.txt"},
}
MODERN = [
    *(
        "--position-embedding-type",
        "rope",
        "--rotary-percent",
        "0.5",
        "--rotary-base",
        "500",
        "--normalization",
        "RMSNorm",
    ),
    *("--group-query-attention", "--num-query-groups", "2", "--swiglu"),
    *("--disable-bias-linear", "--untie-embeddings-and-output-weights"),
]
CASES = {
    **{
        f"{model}-{placement}-{scheme}": (model, ["--norm-placement", placement, "--depth-scheme", scheme])
        for model in ("bert", "gpt")
        for placement in ("pre", "post")
        for scheme in ("megatron", "dslm")
    },
    "gpt-modern": ("gpt", ["--dslm", "--dslm-lambda-sq", "0.95", *MODERN]),
    "bert-modern": ("bert", ["--norm-placement", "post", *MODERN, "--bert-no-binary-head"]),
    "bert-geglu": ("bert", ["--xavier-flag-sigma", "--activation", "geglu", "--kv-channels", "24"]),
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    with open(FOLDER / "wikipedia.jsonl", encoding="utf-8") as file:
        return [json.loads(next(file))["text"] for _ in range(4)]


def batch(model: str, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and token types [4, LENGTH] of real text, padded to different lengths."""
    tokenizer = build_tokenizer("BertWordPieceLowerCase" if model == "bert" else "GPT2BPETokenizer", **FILES[model])  # type: ignore[arg-type]
    ids, mask = torch.zeros(4, LENGTH, dtype=torch.long), torch.zeros(4, LENGTH, dtype=torch.long)
    for row, text in enumerate(texts):
        tokens = tokenizer.tokenize(text)[: LENGTH - 9 * row]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask, (torch.arange(LENGTH) >= LENGTH // 3).long() * mask


@pytest.mark.parametrize("case", slow_but(["bert-pre-dslm", "gpt-modern"], CASES))
def test_logits_and_round_trip(case: str, ranks: RankPool, tmp_path: Path, texts: list[str]) -> None:
    model, flags = CASES[case]
    argv = [*FLAGS, *flags, *data_flags(model), *LAYOUT]
    checkpoint, folder, back = (str(tmp_path / name) for name in ("checkpoint", "hf", "back"))
    ranks.run(4, f"{WORKERS}:save_perturbed", argv=argv, model=model, save=checkpoint)
    inputs = batch(model, texts)
    call: dict[str, Any] = {"process_group": False}
    expected, binary = ranks.run(1, f"{WORKERS}:logits", checkpoint=checkpoint, inputs=inputs, **call)[0]
    line = ranks.run(1, f"{WORKERS}:export", checkpoint=checkpoint, folder=folder, files=FILES[model], **call)[0]
    assert "left out" not in line
    ids, mask, types = inputs
    kept = mask.bool()
    with torch.no_grad():
        if model == "gpt":
            got = DslmGPTForCausalLM.from_pretrained(folder)(ids, attention_mask=mask).logits
        elif binary is None:
            got = DslmBertForMaskedLM.from_pretrained(folder)(ids, mask).logits
        else:
            output = DslmBertForPreTraining.from_pretrained(folder)(ids, mask, types)
            got = output.prediction_logits
            assert (output.seq_relationship_logits - binary).abs().max() < 1e-5
    difference = (got - expected)[kept].abs().max().item()
    print(f"{case}: largest logit {expected[kept].abs().max():.3g}, largest difference {difference:.2g}")
    assert difference < 1e-5
    line, different = ranks.run(1, f"{WORKERS}:round_trip", checkpoint=checkpoint, folder=folder, back=back, **call)[0]
    assert different == []
    assert "drawn anew" not in line
    assert "left out" not in line
    loaded = ranks.run(4, f"{WORKERS}:load_sharded", argv=argv, model=model, checkpoint=checkpoint, folder=folder)
    assert loaded == [[]] * 4


@pytest.mark.slow
@pytest.mark.parametrize(("task", "flags"), [("MNLI", []), ("RACE", ["--bert-no-binary-head", "--dslm"])])
def test_fine_tuned_models(task: str, flags: list[str], ranks: RankPool, tmp_path: Path, texts: list[str]) -> None:
    argv = [*FLAGS, *flags, *data_flags("bert"), "--tensor-model-parallel-size", "2"]
    checkpoint, folder = str(tmp_path / "checkpoint"), str(tmp_path / "hf")
    ranks.run(2, f"{WORKERS}:save_perturbed", argv=argv, model="bert", save=checkpoint, task=task)
    inputs = batch("bert", texts)
    call: dict[str, Any] = {"process_group": False}
    expected = ranks.run(1, f"{WORKERS}:logits", checkpoint=checkpoint, inputs=inputs, **call)[0][0]
    line = ranks.run(1, f"{WORKERS}:export", checkpoint=checkpoint, folder=folder, files=FILES["bert"], **call)[0]
    assert "left out" not in line
    with torch.no_grad():
        if task == "MNLI":
            model = DslmBertForSequenceClassification.from_pretrained(folder).eval()
            assert model.config.label2id == {"contradiction": 0, "entailment": 1, "neutral": 2}
            got = model(*inputs).logits
        else:
            model = DslmBertForMultipleChoice.from_pretrained(folder).eval()
            got = model(*(one.unsqueeze(0) for one in inputs)).logits.T
    difference = (got - expected).abs().max().item()
    print(f"{task}: largest logit {expected.abs().max():.3g}, largest difference {difference:.2g}")
    assert difference < 1e-5
    line, _ = ranks.run(1, f"{WORKERS}:converted_back", folder=folder, back=str(tmp_path / "back"), **call)[0]
    assert "drawn anew: " in line
    assert "left out: classifier" in line


def test_what_does_not_fit_is_named_on_all_ranks(ranks: RankPool, tmp_path: Path) -> None:
    size = {"vocab_size": 4096, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    DslmBertForPreTraining(DslmBertConfig(**size, max_position_embeddings=64)).save_pretrained(tmp_path / "fits")
    DslmBertForMaskedLM(DslmBertConfig(**size, max_position_embeddings=32)).save_pretrained(tmp_path / "short")
    argv = [*FLAGS, *data_flags("bert"), "--pipeline-model-parallel-size", "2"]

    def load(folder: str, strict: bool, *flags: str) -> list[Any]:
        call: dict[str, Any] = {"argv": [*argv, *flags], "folder": str(tmp_path / folder), "strict": strict}
        return ranks.run(2, f"{WORKERS}:load_result", **call)

    assert load("fits", True, "--dslm") == [[], []]
    first, second = load("fits", True, "--bert-no-binary-head")
    assert first == second
    assert "the model has no place for binary_head.bias" in first
    first, second = load("short", False)
    assert first == second
    assert "embedding.position_embeddings.weight is [32, 64] in the folder, and the model wants [64, 64]" in first
    heads = ["binary_head.bias", "binary_head.weight", "pooler.dense.bias", "pooler.dense.weight"]
    DslmBertForMaskedLM(DslmBertConfig(**size, max_position_embeddings=64)).save_pretrained(tmp_path / "headless")
    assert load("headless", False) == [heads, heads]
    assert all("binary_head.bias is missing from the folder" in message for message in load("headless", True))
