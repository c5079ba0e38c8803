"""tools/convert_checkpoint.py from the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dslm_patches.hf import DslmGPTConfig, DslmGPTForCausalLM
from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.hf.small import SMALL

ROOT = Path(__file__).resolve().parents[2]


def convert(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "convert_checkpoint.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_there_and_back(tmp_path: Path) -> None:
    folder, checkpoint, again = (str(tmp_path / name) for name in ("hf", "checkpoint", "again"))
    DslmGPTForCausalLM(DslmGPTConfig(**SMALL)).save_pretrained(folder)
    there = convert("--from", "hf", "--to", "megatron", "--load", folder, "--save", checkpoint)
    assert there.returncode == 0, there.stderr
    assert there.stdout.startswith(f"wrote {checkpoint}/iter_0000000: from dslm_gpt, GPT, 4 layers x 32, dslm pre-LN")
    back = convert("--from", "megatron", "--to", "hf", "--load", checkpoint, "--save", again)
    assert back.returncode == 0, back.stderr
    assert back.stdout.startswith(f"wrote {again}: DslmGPTForCausalLM, GPT, 4 layers x 32")
    name = "model.safetensors"
    assert (tmp_path / "hf" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    # Neither way overwrites.
    there = convert("--from", "hf", "--to", "megatron", "--load", folder, "--save", checkpoint)
    back = convert("--from", "megatron", "--to", "hf", "--load", checkpoint, "--save", again)
    assert "holds a checkpoint already" in there.stderr
    assert f"--save {again} is there already" in back.stderr


@pytest.mark.slow
def test_a_bf16_run_is_exported_in_bf16(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    shape = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32", "--bf16"]
    training = ["--micro-batch-size", "2", "--train-iters", "1", "--lr", "1e-3", "--eval-iters", "0"]
    argv = [*shape, *training, *data_flags("gpt"), "--save", f"{tmp_path}/run"]
    code, output = ranks.run(1, "tests.training.pretrain_workers:run", process_group=False, argv=argv, model="gpt")[0]
    assert code == 0, output
    done = convert("--from", "megatron", "--to", "hf", "--load", f"{tmp_path}/run", "--save", f"{tmp_path}/hf")
    assert done.returncode == 0, done.stderr
    assert {one.dtype for one in load_file(tmp_path / "hf" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "hf", "--to", "hf"], "there is nothing to convert"),
        (["--from", "hf", "--to", "megatron"], "config.json cannot be read"),
        (["--from", "megatron", "--to", "hf"], "holds no checkpoint"),
        (["--from", "hf", "--to", "megatron", "--model-class", "Model"], "--model-class goes with --to hf"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    run = convert(*arguments, "--load", str(tmp_path), "--save", str(tmp_path / "new"))
    assert run.returncode == 2
    line = run.stderr.splitlines()[-1]
    assert line.startswith("convert_checkpoint.py: error: ")
    assert message in line
