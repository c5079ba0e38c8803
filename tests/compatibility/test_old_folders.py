"""What was written before the configuration became dataclasses still loads, goes on and converts.

first_format holds a checkpoint of a run of six steps after the fourth, and the Hugging Face folder made of it:

    python pretrain_bert.py (the flags below) --exit-interval 4 --save bert
    python tools/convert_checkpoint.py --from megatron --to hf --load bert --save hf --vocab-file ...
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dslm_patches.errors import UserError
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from tests.corpus import ROOT

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


def test_transformers_reads_the_folder() -> None:
    transformers = pytest.importorskip("transformers", reason="the extra [hf] is not installed")
    import dslm_patches.hf  # noqa: F401

    model = transformers.AutoModelForMaskedLM.from_pretrained(FORMAT / "hf")
    tokens = torch.arange(5, 15).view(1, 10)
    assert torch.isfinite(model(input_ids=tokens).logits).all()


def test_a_checkpoint_of_an_unknown_model_is_refused_by_name(corpus: None, tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "bert", tmp_path / "bert")
    path = next(tmp_path.glob("bert/iter_*/arguments.json"))
    path.write_text(path.read_text().replace('"model": "bert"', '"model": "t6"'))
    with pytest.raises(UserError, match="is of a model 't6': known are bert, gpt"):
        read_arguments(str(path.parent))
