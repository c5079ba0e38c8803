"""Flags come from the configuration's dataclasses, and a YAML file may stand for them."""

import shlex
from pathlib import Path

import pytest
import yaml

from dslm_patches.errors import UserError
from megatron.dslm.arguments import parse_args
from megatron.dslm.arguments.finetune import build_finetune_parser
from megatron.dslm.arguments.parse import build_parser
from megatron.dslm.config.files import read_config
from megatron.dslm.config.setting import settings_of
from megatron.dslm.models.sections import all_settings, as_flags, finetuning_sections, pretraining_sections
from tests.corpus import data_flags

WORDS = [
    "--num-layers",
    "2",
    "--hidden-size",
    "32",
    "--num-attention-heads",
    "4",
    "--seq-length",
    "32",
    "--micro-batch-size",
    "2",
    "--train-iters",
    "6",
    "--lr",
    "1e-3",
    "--dslm",
    "--dslm-k",
    "0.5",
    "--bert-no-binary-head",
    "--no-cpu-kernels",
    "--eval-iters",
    "2",
]


def printed_config(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What --print-config writes."""
    with pytest.raises(SystemExit) as left:
        parse_args("bert", [*words, "--print-config"])
    assert left.value.code == 0
    return capsys.readouterr().out


def test_every_setting_has_a_flag_and_a_help_text() -> None:
    for section in {*finetuning_sections("bert"), *pretraining_sections("bert"), *pretraining_sections("gpt")}:
        for setting in settings_of(section).values():
            assert setting.help, f"{section.__name__}.{setting.name} has no docstring"
    for parser in (build_parser("bert"), build_parser("gpt"), build_finetune_parser()):
        assert {action.dest for action in parser._actions} <= {*all_settings(), "help", "config", "print_config"}


def test_a_printed_configuration_is_the_same_run(
    corpus: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, *data_flags("bert")]
    path = tmp_path / "run.yaml"
    path.write_text(printed_config(capsys, words))
    by_flags, by_file = parse_args("bert", words), parse_args("bert", ["--config", str(path)])
    same = {
        name: (getattr(by_flags, name), getattr(by_file, name)) for name in all_settings() if hasattr(by_flags, name)
    }
    assert all(ours == theirs for ours, theirs in same.values()), same
    assert printed_config(capsys, ["--config", str(path)]) == path.read_text()


def test_flags_override_the_file(corpus: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(printed_config(capsys, [*WORDS, *data_flags("bert")]))
    args = parse_args("bert", ["--config", str(path), "--lr", "2e-3", "--no-bert-no-binary-head", "--cpu-kernels"])
    assert (args.lr, args.bert_no_binary_head, args.cpu_kernels, args.num_layers) == (2e-3, False, True, 2)


def test_a_part_of_a_configuration_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(printed_config(capsys, ["--dslm", "--lr", "1e-3"]))
    assert content["depth_scheme"]["dslm"] is True
    assert content["learning_rate"]["lr"] == 1e-3
    assert content["model"]["num_layers"] is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("modell:\n  num_layers: 2\n", "no part 'modell'"),
        ("model:\n  layers: 2\n", "model has no setting 'layers'"),
        ("model:\n  num_layers: two\n", "num_layers must be a whole number, not 'two'"),
        ("model:\n  num_layers: .inf\n", "num_layers must be a whole number, not inf"),
        ("model:\n  num_layers: true\n", "num_layers must be a whole number, not True"),
        ("model:\n  num_layers: 2.5\n", "num_layers must be a whole number, not 2.5"),
        ("model:\n  swiglu: 1\n", "swiglu must be true or false, not 1"),
        ("model:\n  activation: tanh\n", "activation must be one of gelu"),
        ("- model\n", "the file must be a mapping"),
        ("model: {\n", "cannot be read"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named) as error:
        read_config(str(path), pretraining_sections("bert"))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate:\n  lr: 1e-3\n  min_lr: 0\ndata:\n  data_path: one\n")
    found = read_config(str(path), pretraining_sections("gpt"))
    assert found == {"lr": 1e-3, "min_lr": 0.0, "data_path": ["one"]}
    assert isinstance(found["min_lr"], float)


def test_a_setting_of_the_file_that_means_nothing_is_refused(
    corpus: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate:\n  lr_wsd_decay_iters: 3\n")
    with pytest.raises(SystemExit) as left:
        parse_args("bert", ["--config", str(path), *WORDS, *data_flags("bert")])
    assert left.value.code == 2
    assert "--lr-wsd-decay-iters 3 needs --lr-decay-style WSD" in capsys.readouterr().err


def test_the_summary_shows_what_can_be_typed_again(corpus: None) -> None:
    words = [*WORDS, *data_flags("bert"), "--tensorboard-dir", "runs/a b"]
    args = parse_args("bert", words)
    again = parse_args("bert", shlex.split(as_flags(args.given)))
    assert again.given == args.given
    assert args.given["tensorboard_dir"] == "runs/a b"
    assert "tokenizer_type" not in args.given
