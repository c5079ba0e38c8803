"""The command line of finetune.py: flags from the pretrained model, and what contradicts it."""

import json
from pathlib import Path

import pytest

from megatron.dslm.arguments.finetune import parse_finetune_args
from megatron.dslm.checkpoints.manifest import write_manifest
from megatron.dslm.checkpoints.saved_arguments import recorded_arguments

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
SHAPE = {"num_layers": "4", "hidden_size": "8", "num_attention_heads": "2", "seq_length": "16"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a vocabulary and QQP files of ten rows."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    rows = "".join(f"{number}\t0\t0\ta b\tb c\t{number % 2}\n" for number in range(10))
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"{HEADER}\n{rows}")
    return tmp_path


def flags(folder: Path, **changes: str | None) -> list[str]:
    """The flags of a small run; a change to None leaves the flag out."""
    values: dict[str, str | None] = {"task": "QQP", "train_data": f"{folder}/train.tsv"}
    values |= {"valid_data": f"{folder}/dev.tsv", "vocab_file": f"{folder}/vocab.txt", "lr": "1e-4", **SHAPE}
    values |= {"micro_batch_size": "4", **changes}
    words = []
    for name, value in values.items():
        if value is not None:
            words += ["--" + name.replace("_", "-"), value]
    return words


def pretrained(folder: Path, **changes: object) -> str:
    """A folder that looks like a checkpoint of pretrain_bert.py to whoever reads no tensors."""
    args = parse_finetune_args([*flags(folder), "--dslm"])
    saved = recorded_arguments(args, 7) | {"task": None} | changes
    checkpoint = folder / "pretrained" / "iter_0000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "arguments.json").write_text(json.dumps(saved))
    (checkpoint / "metadata.json").write_text("{}")
    write_manifest(str(checkpoint), {})
    return str(folder / "pretrained")


def test_iterations_follow_from_epochs(files: Path) -> None:
    args = parse_finetune_args([*flags(files), "--epochs", "3", "--lr-warmup-fraction", "0.25"])
    assert args.train_iters == 8, "30 samples in batches of 4"
    assert (args.lr_decay_iters, args.lr_warmup_iters) == (8, 2)
    assert [len(examples) for _, examples in args.examples["valid_data"]] == [10]
    assert parse_finetune_args([*flags(files), "--train-samples", "21"]).train_iters == 6
    assert parse_finetune_args(flags(files)).train_iters == 8, "three epochs by default"


def test_the_model_comes_from_the_pretrained_folder(files: Path) -> None:
    folder = pretrained(files, num_query_groups=1, max_position_embeddings=64, activation="relu")
    without = flags(files, **dict.fromkeys(SHAPE), pretrained_checkpoint=folder)
    args = parse_finetune_args(without)
    assert (args.num_layers, args.num_query_groups, args.activation) == (4, 1, "relu")
    assert (args.depth_scheme, args.seq_length) == ("dslm", 64)
    args = parse_finetune_args([*without, "--dslm", "--seq-length", "32", "--hidden-dropout", "0"])
    assert (args.seq_length, args.hidden_dropout) == (32, 0.0)


def expect_one_line(argv: list[str], capsys: pytest.CaptureFixture[str], named: list[str]) -> None:
    """Exit code 2 and one line on standard error with all of `named` in it."""
    with pytest.raises(SystemExit) as exit_info:
        parse_finetune_args(argv)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in named:
        assert part in error


@pytest.mark.parametrize(
    ("saved", "given", "named"),
    [
        ({}, {"hidden_size": "16"}, ["--hidden-size 16", "which has 8"]),
        ({}, {"depth_scheme": "xavier"}, ["--depth-scheme xavier", "which has dslm"]),
        ({"model": "gpt"}, {}, ["a GPT, not a BERT"]),
        ({"vocab_size": 9}, {}, ["--vocab-file", "8 tokens", "9"]),
        ({"tokenizer_sha256": "0"}, {}, ["--vocab-file", "not the vocabulary"]),
    ],
)
def test_what_contradicts_the_pretrained_model(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    saved: dict[str, object],
    given: dict[str, str | None],
    named: list[str],
) -> None:
    folder = pretrained(files, **saved)
    shape: dict[str, str | None] = dict.fromkeys(SHAPE)
    expect_one_line(flags(files, **(shape | given), pretrained_checkpoint=folder), capsys, [folder, *named])
