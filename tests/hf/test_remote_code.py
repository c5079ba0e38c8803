"""Exported folders where this project is not installed: their own code, the same logits, and the tokenizer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend

from dslm_patches.hf import (
    DslmBertConfig,
    DslmBertForPreTraining,
    DslmBertForSequenceClassification,
    DslmGPTConfig,
    DslmGPTForCausalLM,
)
from dslm_patches.hf.export import export_model
from megatron.dslm.conversion.tokenizers import special_ids, tokenizer_files
from megatron.dslm.data.tokenizer import build_tokenizer
from tests.corpus import FOLDER

pytestmark = pytest.mark.usefixtures("corpus")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "intermediate_size": 64,
}
ALONE = """
import json, os, sys
sys.path = [entry for entry in sys.path if entry not in ("", os.getcwd(), {root!r})]
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dslm_patches", "megatron", "tests", "tools"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, {auto} as Auto
folder = {folder!r}
model = Auto.from_pretrained(folder, trust_remote_code=True)
ids = torch.arange(40).view(2, 20) + 5
with torch.no_grad():
    output = model(ids)
body = AutoModel.from_pretrained(folder, trust_remote_code=True)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
torch.manual_seed(0)
fresh = Auto.from_config(config, trust_remote_code=True)
query = [layer.self_attn.q_proj.weight.std().item() for layer in fresh.base_model.layers]
value = [layer.self_attn.v_proj.weight.std().item() for layer in fresh.base_model.layers]
again = folder + "-again"
fresh.save_pretrained(again)
reloaded = Auto.from_pretrained(again, trust_remote_code=True)
same = all(torch.equal(one, other) for one, other in zip(fresh.state_dict().values(), reloaded.state_dict().values()))
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
print(json.dumps({{
    "logits": output[0].tolist(), "query": query, "value": value, "same": same,
    "modules": [type(one).__module__ for one in (model, body, fresh)],
    "tokens": tokenizer("Autism is a disorder.")["input_ids"],
    "ours": [name for name in sys.modules if name.split(".")[0] in ("dslm_patches", "megatron")],
}}))
"""


def load_alone(folder: Path, auto: str, tmp_path: Path) -> dict[str, Any]:
    """What a Python without this project says of a folder."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    root = str(Path(__file__).resolve().parents[2])
    code = ALONE.format(folder=str(folder), auto=auto, root=root)
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def bert_tokenizer() -> Any:
    return build_tokenizer("BertWordPieceLowerCase", f"{FOLDER}/bert-vocab.txt")


def gpt_tokenizer() -> Any:
    return build_tokenizer("GPT2BPETokenizer", f"{FOLDER}/gpt-vocab.json", f"{FOLDER}/gpt-merges.txt")


def export(kind: str, folder: Path) -> Any:
    """A small model of a kind, exported; it itself."""
    torch.manual_seed(1)
    if kind == "bert":
        tokenizer, merges, config_class, model_class = bert_tokenizer(), None, DslmBertConfig, DslmBertForPreTraining
    else:
        tokenizer, merges = gpt_tokenizer(), f"{FOLDER}/gpt-merges.txt"
        config_class, model_class = DslmGPTConfig, DslmGPTForCausalLM
    rope = {} if kind == "bert" else {"position_embedding_type": "rope", "hidden_act": "swiglu"}
    size = {"vocab_size": tokenizer.vocab_size + 24, "tokenizer_vocab_size": tokenizer.vocab_size}
    config = config_class(**SMALL, **size, **rope, **special_ids(tokenizer))
    model = model_class(config).eval()
    state = {name: one for name, one in model.state_dict().items() if name not in model.all_tied_weights_keys}
    vocabulary = f"{FOLDER}/bert-vocab.txt" if kind == "bert" else f"{FOLDER}/gpt-vocab.json"
    files = tokenizer_files(tokenizer, vocabulary, merges)
    export_model(state, config, str(folder), model_class=model_class.__name__, tokenizer=files, facts={"steps": "0"})
    return model


@pytest.mark.parametrize(
    ("kind", "auto"),
    [("bert", "AutoModelForPreTraining"), pytest.param("gpt", "AutoModelForCausalLM", marks=pytest.mark.slow)],
)
def test_a_folder_stands_alone(kind: str, auto: str, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    model = export(kind, folder)
    assert not list(tmp_path.glob("*incomplete*"))
    found = load_alone(folder, auto, tmp_path)
    assert found["ours"] == []
    assert all(name.startswith("transformers_modules.") for name in found["modules"])
    assert found["same"]
    with torch.no_grad():
        expected = model(torch.arange(40).view(2, 20) + 5)[0]
    assert torch.equal(torch.tensor(found["logits"]), expected)
    for layer in range(SMALL["num_hidden_layers"]):
        for role in ("query", "value"):
            std = model.config.layer_std(role, layer)
            assert found[role][layer] == pytest.approx(std, rel=5 / (2 * 32 * 32) ** 0.5)
    card = (folder / "README.md").read_text()
    assert "Licence" in card
    assert auto in card


def test_save_pretrained_keeps_the_code_of_all_classes(tmp_path: Path) -> None:
    config = DslmBertConfig(**SMALL, vocab_size=4096)
    DslmBertForSequenceClassification(config).save_pretrained(tmp_path / "saved")
    export("bert", tmp_path / "exported")
    saved = {path.name for path in (tmp_path / "saved").glob("*.py")}
    assert saved == {path.name for path in (tmp_path / "exported").glob("*.py")}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"] == config.auto_classes
    for name in saved:
        text = (tmp_path / "saved" / name).read_text()
        assert text == (Path(__file__).resolve().parents[2] / "dslm_patches" / "hf" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_tokens_are_those_of_training(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(kind, tmp_path / "exported")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ours = bert_tokenizer() if kind == "bert" else gpt_tokenizer()
    with open(FOLDER / "wikipedia.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    texts.append("x" * 150)
    assert theirs(texts, add_special_tokens=False, verbose=False)["input_ids"] == ours.tokenize_batch(texts)
    pair = theirs("one text", "another")
    if kind == "bert":
        first, second = ours.tokenize("one text"), ours.tokenize("another")
        assert pair["input_ids"] == [ours.cls, *first, ours.sep, *second, ours.sep]
        assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert (theirs.pad_token_id, theirs.mask_token_id, theirs.cls_token_id) == (ours.pad, ours.mask, ours.cls)
    else:
        assert theirs.eos_token_id == ours.eod
    assert isinstance(theirs.backend_tokenizer, Backend)
    assert theirs.model_max_length == SMALL["max_position_embeddings"]


def test_export_overwrites_nothing(tmp_path: Path) -> None:
    export("bert", tmp_path / "exported")
    with pytest.raises(ValueError, match=r"exported is there already"):
        export("bert", tmp_path / "exported")
