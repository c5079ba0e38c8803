"""Stock BERT checkpoints of transformers: the same outputs here, in transformers and in megatron-core."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

import dslm_patches.hf as ours
from dslm_patches.hf import DslmBertConfig
from dslm_patches.hf.reader import FolderReader
from dslm_patches.hf.stock import from_stock_bert
from dslm_patches.hf_folder import read_config
from megatron.dslm.huggingface.fields import hf_arguments
from tests.distributed.pool import RankPool

WORKERS = "tests.hf.hf_workers"
CLASSES = {
    "Model": BertModel,
    "ForPreTraining": BertForPreTraining,
    "ForMaskedLM": BertForMaskedLM,
    "ForSequenceClassification": BertForSequenceClassification,
    "ForMultipleChoice": BertForMultipleChoice,
}


def stock(folder: Path, name: str = "ForPreTraining", **settings: Any) -> Any:
    """A stock BERT with noise on its norms and biases, saved in `folder`."""
    torch.manual_seed(3)
    size = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 160}
    model = CLASSES[name](BertConfig(**{**size, "vocab_size": 701, "max_position_embeddings": 48, **settings})).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    model.save_pretrained(folder)
    return model


def inputs(choices: bool = False) -> dict[str, torch.Tensor]:
    """Ids, mask and token types of three padded sequences."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 701, (3, 40), generator=generator)
    mask = (torch.arange(40) < torch.tensor([[40], [31], [17]])).long()
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (torch.arange(40) > 12).long() * mask}
    return {name: one.unsqueeze(1) for name, one in batch.items()} if choices else batch


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_are_the_stock_models(name: str, tmp_path: Path) -> None:
    theirs = stock(tmp_path, name, num_labels=3)
    state, config = from_stock_bert(load_file(tmp_path / "model.safetensors"), read_config(str(tmp_path)))
    model = getattr(ours, f"DslmBert{name}")(config).eval()
    if name == "Model":
        state = {key.removeprefix("bert."): one for key, one in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= set(model.all_tied_weights_keys)
    assert unexpected == []
    batch = inputs(name == "ForMultipleChoice")
    with torch.no_grad():
        expected, got = theirs(**batch, output_hidden_states=True), model(**batch, output_hidden_states=True)
    kept = inputs()["attention_mask"].bool()
    differences = [
        (one - other)[kept].abs().max() for one, other in ((got.hidden_states[-1], expected.hidden_states[-1]),)
    ]
    for field in ("prediction_logits", "logits", "seq_relationship_logits", "pooler_output"):
        if expected.get(field) is not None:
            difference = (got[field] - expected[field]).abs()
            differences.append((difference[kept] if difference.shape[:2] == kept.shape else difference).max())
    print(f"{name}: largest difference {max(differences).item():.2g}")
    assert max(differences) < 1e-5


def test_first_names_of_norms_are_understood(tmp_path: Path) -> None:
    stock(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    old = {
        re.sub("LayerNorm.weight", "LayerNorm.gamma", re.sub("LayerNorm.bias", "LayerNorm.beta", name)): one
        for name, one in state.items()
    }
    config = read_config(str(tmp_path))
    new_state, old_state = from_stock_bert(state, config)[0], from_stock_bert(old, config)[0]
    assert new_state.keys() == old_state.keys()
    assert all(torch.equal(new_state[name], old_state[name]) for name in new_state)


def test_megatron_core_computes_the_stock_models_logits(ranks: RankPool, tmp_path: Path) -> None:
    theirs = stock(tmp_path, "ForMaskedLM")
    batch = inputs()
    with torch.no_grad():
        expected = theirs(**batch).logits
    logits, new = ranks.run(
        1, f"{WORKERS}:imported_logits", folder=str(tmp_path), inputs=tuple(batch.values()), process_group=False
    )[0]
    assert new == ["binary_head.bias", "binary_head.weight", "pooler.dense.bias", "pooler.dense.weight"]
    difference = (logits - expected)[batch["attention_mask"].bool()].abs().max().item()
    print(f"largest difference {difference:.2g}")
    assert difference < 1e-5


def test_what_cannot_be_taken_over_is_named(tmp_path: Path) -> None:
    model = stock(tmp_path / "tanh", hidden_act="gelu_new")
    with pytest.raises(ValueError, match="hidden_act 'gelu_new'"):
        FolderReader(str(tmp_path / "tanh"))
    (tmp_path / "pickled").mkdir()
    BertConfig().save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled weights, which can run code.*save_pretrained again"):
        FolderReader(str(tmp_path / "pickled"))
    stock(tmp_path / "extra")
    state = load_file(tmp_path / "extra" / "model.safetensors")
    save_file({**state, "bert.adapter.weight": torch.ones(2)}, tmp_path / "extra" / "model.safetensors")
    with pytest.raises(ValueError, match=r"bert\.adapter\.weight"):
        FolderReader(str(tmp_path / "extra"))
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        FolderReader(str(tmp_path / "nothing"))


def test_flags_of_a_stock_folder(tmp_path: Path) -> None:
    stock(tmp_path)
    arguments = hf_arguments(str(tmp_path))
    expected = {
        "model": "bert",
        "num_layers": 3,
        "ffn_hidden_size": 160,
        "kv_channels": 16,
        "norm_placement": "post",
        "depth_scheme": "megatron",
        "norm_epsilon": 1e-12,
        "vocab_size": 701,
        "make_vocab_size_divisible_by": 1,
        "bert_no_binary_head": False,
        "init_method_std": None,
    }
    assert {name: arguments[name] for name in expected} == expected
    BertConfig(type_vocab_size=3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type_vocab_size 3"):
        hf_arguments(str(tmp_path))
    DslmBertConfig(type_vocab_size=0).save_pretrained(tmp_path)
    assert hf_arguments(str(tmp_path))["bert_no_binary_head"]


def test_flags_are_read_without_torch(tmp_path: Path) -> None:
    stock(tmp_path)
    code = (
        "import sys; from megatron.dslm.huggingface.fields import hf_arguments; "
        f"print(hf_arguments({str(tmp_path)!r})['num_layers'], {{'torch', 'transformers'}} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout == "3 set()\n", run.stderr
