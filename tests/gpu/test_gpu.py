"""The GPU path on one CUDA device: bf16, tracing, checkpoints, fine-tuning, profiles; beside the CPU where possible."""

import json
from pathlib import Path

import pytest

from dslm_patches.tracing.trace_file import read_records
from tests.corpus import data_flags
from tests.finetuning.task_files import VOCABULARY, write_qqp
from tests.gpu.runs import LOCAL, NO_DROPOUT, SMALL, TRAINING, losses, needs_gpu, pretrain, python

pytestmark = [pytest.mark.gpu, needs_gpu]


@pytest.mark.parametrize("model", ["bert", "gpt"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_bf16_trains(corpus: None, model: str, placement: str) -> None:
    found = losses(model, "--bf16", "--norm-placement", placement)
    assert len(found) == 20
    assert found[-1] < found[0] - 0.5


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_gpu_and_cpu_train_alike(corpus: None, model: str) -> None:
    on_gpu, on_cpu = (losses(model, *NO_DROPOUT, *LOCAL, gpu=gpu) for gpu in (True, False))
    assert len(on_gpu) == 20
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


def test_what_changes_the_work_does_not_change_the_losses(corpus: None, tmp_path: Path) -> None:
    plain = losses("bert", *NO_DROPOUT, *LOCAL)
    overlapped = ["--use-distributed-optimizer", "--overlap-grad-reduce", "--overlap-param-gather"]
    for flags in (
        ["--recompute-granularity", "full", "--recompute-method", "uniform", "--recompute-num-layers", "2"],
        ["--recompute-granularity", "selective", "--num-workers", "0"],
        [*overlapped, "--save", str(tmp_path), "--save-interval", "5", "--async-save"],
    ):
        assert losses("bert", *NO_DROPOUT, *LOCAL, *flags) == pytest.approx(plain, rel=1e-3), flags


@pytest.mark.parametrize("flags", [[], ["--use-distributed-optimizer", "--async-save"]])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(corpus: None, tmp_path: Path, flags: list[str]) -> None:
    flags = ["--bf16", *flags]  # with dropout: the generators' states are part of it
    straight = losses("gpt", *flags, "--save", str(tmp_path / "straight"))
    folder = tmp_path / "broken"
    kept = ["--save", str(folder), "--load", str(folder)]
    broken = losses("gpt", *flags, *kept, "--exit-interval", "10")
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "10"
    broken += losses("gpt", *flags, *kept)
    assert broken == pytest.approx(straight, rel=2e-3)  # gradients of embeddings are summed in no fixed order


@pytest.mark.parametrize("flags", [[], ["--use-distributed-optimizer"]])
def test_a_run_goes_on_on_the_other_device(corpus: None, tmp_path: Path, flags: list[str]) -> None:
    flags = [*NO_DROPOUT, *LOCAL, *flags]
    straight = losses("gpt", *flags)
    for first in (True, False):
        kept = ["--save", str(tmp_path / str(first)), "--load", str(tmp_path / str(first))]
        broken = losses("gpt", *flags, *kept, "--exit-interval", "10", gpu=first)
        broken += losses("gpt", *flags, *kept, gpu=not first)
        assert broken == pytest.approx(straight, rel=1e-3), first


def test_traces_on_gpu_and_cpu_agree(corpus: None, tmp_path: Path) -> None:
    sites = ["layer", "attention", "ffn", "norms", "logits", "embeddings", "head", "weights"]
    flags = [*NO_DROPOUT, *LOCAL, "--trace-interval", "20", "--trace-sites", *sites]
    records = []
    for gpu in (True, False):
        losses("bert", *flags, "--trace-dir", str(tmp_path / str(gpu)), gpu=gpu)
        records.append(next(read_records(tmp_path / str(gpu))))
    assert set(records[0].sites) == set(records[1].sites)
    for site in records[0].sites:
        for way in ("activation", "gradient"):
            ours, theirs = (getattr(one.sites[site], way).variance for one in records)
            assert ours == pytest.approx(theirs, rel=1e-3), (site, way)


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_bf16_training_is_traced(corpus: None, tmp_path: Path, model: str) -> None:
    pretrain(
        model, "--bf16", "--trace-interval", "10", "--trace-sites", "layer", "weights", "--trace-dir", str(tmp_path)
    )
    assert [one.iteration for one in read_records(tmp_path)] == [1, 10, 20]


def test_a_mistake_found_after_the_start_is_one_line(corpus: None, tmp_path: Path) -> None:
    pretrain("gpt", "--bf16", "--save", str(tmp_path), "--train-iters", "2")
    other = ["--load", str(tmp_path), "--ffn-hidden-size", "512"]
    done = python("pretrain_gpt.py", *SMALL, *TRAINING, *data_flags("gpt"), *other, code=2)
    assert done.stderr.strip().splitlines()[-1].startswith("pretrain_gpt.py: error: ")
    assert "Traceback" not in done.stderr


def test_pretrain_fine_tune_and_export(corpus: None, tmp_path: Path) -> None:
    checkpoints = str(tmp_path / "pretrained")
    pretrain("bert", "--bf16", "--save", checkpoints)
    data = ["--train-data", write_qqp(tmp_path / "train.tsv", 64), "--valid-data", write_qqp(tmp_path / "dev.tsv", 32)]
    done = python(
        *["finetune.py", "--task", "QQP", "--pretrained-checkpoint", checkpoints, *data, *VOCABULARY, "--bf16"],
        *["--micro-batch-size", "8", "--epochs", "2", "--lr", "1e-4", "--save", str(tmp_path / "tuned")],
    )
    assert "accuracy" in done.stdout
    exported = []
    for gpu in (True, False):
        folder = tmp_path / f"hf_{gpu}"
        tool = ["tools/convert_checkpoint.py", "--from", "megatron", "--to", "hf", "--load", checkpoints]
        python(*tool, "--save", str(folder), *VOCABULARY, gpu=gpu)
        exported.append((folder / "model.safetensors").read_bytes())
    assert exported[0] == exported[1]
    assert b'"BF16"' in exported[0][:2000]


def test_a_profile_on_the_gpu_is_that_of_the_cpu(tmp_path: Path) -> None:
    program = "import sys; from megatron.dslm.cli.main import main; sys.exit(main())"
    shape = ["--num-layers", "12", "--hidden-size", "256", "--num-attention-heads", "4", "--seq-length", "128"]
    profiles = []
    for gpu in (True, False):
        path = tmp_path / f"{gpu}.json"
        command = ["profile", "bert", *shape, *NO_DROPOUT, "--dslm", "--vocab-size", "500", "--json", str(path)]
        python("-c", program, *command, gpu=gpu)
        profiles.append(json.loads(path.read_text())["sites"]["layer"])
    for way in ("activation", "gradient"):
        ours, theirs = (one[way]["variance"] for one in profiles)
        assert ours == pytest.approx(theirs, rel=1e-3), way
