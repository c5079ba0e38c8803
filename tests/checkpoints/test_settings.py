"""Every flag is in a class: it may change when a run goes on, needs leave, or never may."""

import argparse
import copy
import json
from pathlib import Path

import pytest

from dslm_patches.errors import UserError
from megatron.dslm.arguments.finetune import build_finetune_parser
from megatron.dslm.arguments.parse import build_parser, parse_args
from megatron.dslm.checkpoints.saved_arguments import check_resume, recorded_arguments
from megatron.dslm.checkpoints.settings import CLASS_OF, CLASSES, OnResume, markdown_table
from tests.corpus import ROOT, data_flags

SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--train-iters", "6", "--lr", "1e-3"]
OTHER_VALUES = {"optimizer": "sgd", "lr_decay_style": "cosine", "lr_wsd_decay_style": "linear", "split": "80,10,10"}
"""Of flags that take words; numbers are moved a little, switches turned."""


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """The names of a parser's arguments."""
    return {action.dest for action in parser._actions} - {"help", "config", "print_config"}


def test_every_flag_is_in_one_class() -> None:
    parsers = [build_parser("bert"), build_parser("gpt"), build_finetune_parser()]
    flags = set().union(*map(flags_of, parsers))
    assert flags - set(CLASS_OF) == set(), "say in megatron/dslm/config what becomes of them on resume"
    assert set(CLASS_OF) - flags == {"model"}, "flags that are gone"
    assert sum(map(len, CLASSES.values())) == len(CLASS_OF), "a flag in two classes"


def test_the_docs_show_the_classes() -> None:
    assert markdown_table() in (ROOT / "docs" / "reliability.md").read_text()


@pytest.fixture(scope="module")
def args(corpus: None) -> argparse.Namespace:
    return parse_args("bert", [*SHAPE, *TRAINING, *data_flags("bert")])


def changed(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """The arguments with another value of one of them."""
    other = copy.copy(args)
    value = getattr(args, name, None)
    if name in OTHER_VALUES:
        value = OTHER_VALUES[name]
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, (int, float)):
        value = value * 2 + 1
    else:
        value = "other"
    setattr(other, name, value)
    return other


@pytest.mark.parametrize("name", [*CLASSES[OnResume.NEVER], *CLASSES[OnResume.COURSE], *CLASSES[OnResume.BY_NAME]])
def test_another_value_is_refused_by_name_and_taken_by_leave(args: argparse.Namespace, name: str) -> None:
    kind = CLASS_OF[name]
    if name in ("model", "vocab_file", "merge_file", "tokenizer_type"):
        return  # told in words of their own, below
    saved = json.loads(json.dumps(recorded_arguments(args, 3)))
    check_resume(args, saved, "run")
    other = changed(args, name)
    if name in args.contents:
        other.contents = {**args.contents, name: [["0"], None]}
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} ") as error:
        check_resume(other, saved, "run")
    way_out = {OnResume.COURSE: "--override-opt-param-scheduler", OnResume.BY_NAME: "--override-settings"}
    assert (way_out.get(kind, "another model")) in str(error.value)
    other.override_opt_param_scheduler, other.override_settings = kind is OnResume.COURSE, [name]
    if kind is OnResume.NEVER:
        with pytest.raises(UserError):
            check_resume(other, saved, "run")
    else:
        check_resume(other, saved, "run")


def test_data_are_known_by_content_not_by_path(args: argparse.Namespace) -> None:
    saved = json.loads(json.dumps(recorded_arguments(args, 3)))
    moved = copy.copy(args)
    moved.data_path = ["elsewhere/bert_text_sentence"]
    check_resume(moved, saved, "run")
    other = copy.copy(args)
    other.contents = {"data_path": [["0" * 32], None]}
    with pytest.raises(UserError, match=r"--data-path .*other data.*--override-settings data-path"):
        check_resume(other, saved, "run")


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "same"),
    [
        ("split", "90,5,5", "0.9,0.05,0.05", True),
        ("split", "90,5,5", "90,10,0", False),
        ("init_method_std", 0.02, None, True),
        ("init_method_std", 0.01, None, False),
    ],
)
def test_two_spellings_of_a_setting_are_one(
    args: argparse.Namespace, name: str, ours: object, theirs: object, same: bool
) -> None:
    other = copy.copy(args)
    setattr(other, name, ours)
    saved = {**recorded_arguments(args, 3), name: theirs}
    if same:
        check_resume(other, saved, "run")
    else:
        with pytest.raises(UserError):
            check_resume(other, saved, "run")


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([["a"], None], [["a"], [3.0]], True),
        ([["a", "b"], [1.0, 3.0]], [["a", "b"], [0.25, 0.75]], True),
        ([["a", "b"], [1.0, 3.0]], [["a", "b"], None], False),
    ],
)
def test_weights_are_shares(args: argparse.Namespace, ours: object, theirs: object, same: bool) -> None:
    other = copy.copy(args)
    other.contents = {"data_path": ours}
    saved = {**recorded_arguments(args, 3), "contents": {"data_path": theirs}}
    if same:
        check_resume(other, saved, "run")
    else:
        with pytest.raises(UserError, match="--override-settings data-path"):
            check_resume(other, saved, "run")


def test_another_program_or_vocabulary_is_told_as_that(args: argparse.Namespace) -> None:
    saved = recorded_arguments(args, 3)
    with pytest.raises(UserError, match="holds a GPT, and this program trains a BERT"):
        check_resume(args, {**saved, "model": "gpt"}, "run")
    for name, value in (("vocab_size", 7), ("tokenizer_sha256", "0" * 64)):
        with pytest.raises(UserError, match=f"--vocab-file {args.vocab_file} is not the vocabulary"):
            check_resume(args, {**saved, name: value}, "run")


def test_dropout_belongs_to_the_scheme_under_dslm(args: argparse.Namespace) -> None:
    dslm = copy.copy(args)
    dslm.depth_scheme = "dslm"
    saved = json.loads(json.dumps(recorded_arguments(dslm, 3)))
    dslm.hidden_dropout, dslm.override_settings = 0.0, ["hidden_dropout"]
    with pytest.raises(UserError, match="another model, scheme or optimizer: --hidden-dropout"):
        check_resume(dslm, saved, "run")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["lr"], "--override-opt-param-scheduler"),
        (["num-layers"], "a run keeps that for as long as it lives"),
        (["train-data"], "no setting that can be taken over here; these can: attention-dropout hidden-dropout"),
        (["seed,mask-probe"], "mask-probe: no setting"),
        (["--seeed"], "seeed: no setting"),
    ],
)
def test_only_settings_that_can_be_taken_over_are(
    corpus: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    flags = [*SHAPE, *TRAINING, *data_flags("bert"), "--load", str(tmp_path), f"--override-settings={words[0]}"]
    with pytest.raises(SystemExit) as exit_info:
        parse_args("bert", flags)
    assert exit_info.value.code == 2
    assert named in capsys.readouterr().err
