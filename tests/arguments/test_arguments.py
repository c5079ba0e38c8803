"""Flags: what follows from others, and every spelling of a scheme. Mistakes: tests/reliability/bad_inputs.py."""

from pathlib import Path

import pytest

from megatron.dslm.arguments import parse_args
from tests.reliability.site import make_site, pretraining_flags, words


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with what a small run reads."""
    make_site(tmp_path)
    return tmp_path


def flags(site: Path, **changes: str | None) -> list[str]:
    """A command line that works, with flags changed or (None) taken out."""
    return words({**pretraining_flags(site), **changes})


def test_defaults_follow_from_other_flags(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    args = parse_args("bert", [*flags(site), "--tensor-model-parallel-size", "2", "--swiglu"])
    assert (args.data_parallel_size, args.global_batch_size, args.num_microbatches) == (2, 4, 1)
    assert (args.kv_channels, args.activation, args.ffn_hidden_size) == (16, "swiglu", 128)
    assert (args.depth_scheme, args.norm_placement, args.max_position_embeddings) == ("megatron", "pre", 32)


@pytest.mark.parametrize(
    ("extra", "scheme", "placement"),
    [
        (["--dslm"], "dslm", "pre"),
        (["--depth-scheme", "dslm", "--dslm"], "dslm", "pre"),
        (["--moment-control-sigma", "--moment-control-lambda-beta"], "dslm", "pre"),
        (["--xavier-flag-sigma"], "xavier", "pre"),
        (["--dslm", "--apply-residual-connection-post-layernorm"], "dslm", "post"),
        (["--norm-placement", "post"], "megatron", "post"),
    ],
)
def test_every_spelling_of_a_scheme(site: Path, extra: list[str], scheme: str, placement: str) -> None:
    args = parse_args("bert", [*flags(site), *extra])
    assert (args.depth_scheme, args.norm_placement) == (scheme, placement)


def test_original_names_set_the_residual(site: Path) -> None:
    original = ["--moment-control-sigma", "--moment-control-lambda-beta", "--moment-control-lambda-sq", "0.995"]
    args = parse_args("bert", [*flags(site), *original, "--moment-control-beta-sq", "0.005"])
    assert (args.scheme_options.lambda_sq, args.scheme_options.beta_sq) == (0.995, 0.005)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("--num-query-groups 1", "--num-query-groups 1 needs --group-query-attention"),
        ("--rotary-base 500", "--rotary-base 500 needs --position-embedding-type rope"),
        ("--lr-wsd-decay-iters 2", "--lr-wsd-decay-iters 2 needs --lr-decay-style WSD"),
        ("--lr-wsd-decay-style linear", "--lr-wsd-decay-style linear needs --lr-decay-style WSD"),
        ("--optimizer sgd --adam-beta2 0.9", "--adam-beta2 0.9 needs --optimizer adam"),
        ("--sgd-momentum 0.5", "--sgd-momentum 0.5 needs --optimizer sgd"),
        ("--recompute-method block", "--recompute-method block needs --recompute-granularity full"),
        ("--lr-warmup-init 1e-5", "--lr-warmup-init 1e-05 needs --lr-warmup-iters"),
        ("--override-settings seed split", "--override-settings seed split needs --load"),
        ("--trace-sites weights", "--trace-sites needs --trace-interval"),
        ("--trace-growth-limit 2", "--trace-growth-limit needs --trace-interval"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(
    site: Path, capsys: pytest.CaptureFixture[str], extra: str, named: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_args("bert", [*flags(site), *extra.split()])
    error = capsys.readouterr().err
    assert (exit_info.value.code, error.count("\n")) == (2, 1)
    assert named in error


def test_query_groups(site: Path) -> None:
    assert parse_args("bert", [*flags(site), "--group-query-attention"]).num_query_groups == 1
    assert parse_args("bert", [*flags(site), "--num-query-groups", "4"]).num_query_groups == 4, "as many as heads"


@pytest.mark.parametrize(
    ("environment", "lines"),
    [
        ({"RANK": "1", "LOCAL_RANK": "1"}, 0),
        ({"RANK": "2", "LOCAL_RANK": "0"}, 1),  # of the second machine
        ({"RANK": "1"}, 0),  # not by torchrun
    ],
)
def test_only_the_first_rank_of_a_machine_speaks(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    lines: int,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("megatron.dslm.config.one_line_parser.SECONDS_FOR_THE_FIRST_RANK", 0.0)
    with pytest.raises(SystemExit) as exit_info:
        parse_args("bert", flags(site, lr="nan"))
    assert (exit_info.value.code, capsys.readouterr().err.count("\n")) == (2, lines)
