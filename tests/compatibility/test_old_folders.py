"""What was written before the configuration became dataclasses still loads, goes on and converts.

first_format holds a checkpoint of a run of six steps after the fourth, and the Hugging Face folder made of it:

    python pretrain_bert.py (the flags below) --exit-interval 4 --save bert
    python tools/convert_checkpoint.py --from megatron --to hf --load bert --save hf --vocab-file ...
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from dslm_patches.errors import UserError
from dslm_patches.hf import DslmBertForPreTraining
from dslm_patches.hf.prescription_dslm import compute_prescription
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from tests.corpus import ROOT
from tests.hf.test_remote_code import load_alone

FORMAT = Path(__file__).parent / "first_format"
VOCABULARY = "data/wikipedia/pieces-vocab.txt"
FLAGS = [
    *("--dslm", "--dslm-k", "0.5", "--num-layers", "2", "--hidden-size", "16", "--num-attention-heads", "2"),
    *("--seq-length", "32", "--position-embedding-type", "rope", "--micro-batch-size", "4", "--lr", "1e-2"),
    *("--lr-decay-style", "cosine", "--lr-warmup-iters", "2", "--train-iters", "6", "--eval-iters", "2"),
    *("--eval-interval", "100", "--log-interval", "1", "--data-path", "data/wikipedia/pieces_text_sentence"),
    *("--vocab-file", VOCABULARY, "--split", "90,5,5", "--make-vocab-size-divisible-by", "64", "--seed", "7"),
]
UNINTERRUPTED = {5: [6.9270, 0.6816, 2.356], 6: [7.0041, 0.7002, 2.611]}
"""Losses and gradient norm that the run had which was not cut short; on another machine the last digit may differ."""


def program(*words: str) -> str:
    """What a program of the project prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_checkpoint_resumes_to_the_same_losses(corpus: None, tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "bert", tmp_path / "bert")
    printed = program("pretrain_bert.py", *FLAGS, "--load", str(tmp_path / "bert"))
    assert "at iteration 4 of 6" in printed
    found = re.findall(r"^iteration (\d)/6 \| lm loss (\S+) \| nsp loss (\S+) \| grad norm (\S+)", printed, re.M)
    assert [int(step) for step, *_ in found] == list(UNINTERRUPTED)
    for step, *values in found:
        assert [float(value) for value in values] == pytest.approx(UNINTERRUPTED[int(step)], abs=1e-3)


@pytest.mark.slow
def test_a_checkpoint_becomes_the_same_folder(corpus: None, tmp_path: Path) -> None:
    convert = ["tools/convert_checkpoint.py", "--from", "megatron", "--to", "hf", "--load", str(FORMAT / "bert")]
    program(*convert, "--save", str(tmp_path / "hf"), "--vocab-file", VOCABULARY)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "hf", FORMAT / "hf"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_folder_becomes_a_checkpoint_that_evaluates_alike(corpus: None, tmp_path: Path) -> None:
    convert = ["tools/convert_checkpoint.py", "--from", "hf", "--to", "megatron", "--load", str(FORMAT / "hf")]
    program(*convert, "--save", str(tmp_path / "megatron"))
    assert find_checkpoint(str(tmp_path / "megatron")) is not None
    printed = [
        program("pretrain_bert.py", *FLAGS, "--pretrained-checkpoint", str(folder))
        for folder in (FORMAT / "bert", FORMAT / "hf", tmp_path / "megatron")
    ]
    losses = {re.search(r"validation loss at iteration 0: (\S+)", one)[1] for one in printed}  # type: ignore[index]
    assert len(losses) == 1, losses
    assert losses != {"8.5135"}, "of the weights as they are drawn"


def logits_of_this_version(folder: Path) -> torch.Tensor:
    """What this version's classes compute of a folder's weights, for the tokens of `ALONE`."""
    model = DslmBertForPreTraining.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.arange(40).view(2, 20) + 5)[0]


def test_transformers_reads_the_folder_by_this_versions_classes() -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(FORMAT / "hf").eval()
    assert type(model).__module__ == "dslm_patches.hf.modeling_dslm_bert"
    with torch.no_grad():
        logits = model(torch.arange(40).view(2, 20) + 5).logits
    assert torch.equal(logits, logits_of_this_version(FORMAT / "hf"))


@pytest.mark.slow
def test_the_folders_own_code_computes_the_same(tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "hf", tmp_path / "hf")
    alone = load_alone(tmp_path / "hf", "AutoModelForPreTraining", tmp_path)
    assert alone["ours"] == []
    assert torch.allclose(torch.tensor(alone["logits"]), logits_of_this_version(FORMAT / "hf"), atol=1e-6)


@pytest.mark.slow
def test_the_folders_own_code_finds_what_it_computes_a_prescription_by() -> None:
    """Where its prescription is taken out, it asks the installed package, which is of this version."""
    sys.path.insert(0, str(FORMAT / "hf"))
    try:
        old = importlib.import_module("prescription_dslm")
    finally:
        sys.path.remove(str(FORMAT / "hf"))
        sys.modules.pop("prescription_dslm", None)
    config = transformers.AutoConfig.from_pretrained(FORMAT / "hf")
    assert old.compute_prescription(config) == compute_prescription(config)


def test_a_checkpoint_of_an_unknown_model_is_refused_by_name(corpus: None, tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "bert", tmp_path / "bert")
    path = next(tmp_path.glob("bert/iter_*/arguments.json"))
    path.write_text(path.read_text().replace('"model": "bert"', '"model": "t6"'))
    with pytest.raises(UserError, match="is of a model 't6': known are bert, gpt"):
        read_arguments(str(path.parent))
