"""Flags: what follows from others, every spelling of a scheme, and one line for every mistake."""

import os
import struct
from pathlib import Path

import pytest

from megatron.dslm.arguments import parse_args

WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A vocabulary of 13 and a tiny sentence-split data set of token ids below 13, as a prefix."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n")
    write_data(tmp_path / "tiny", sentences=[[5, 6], [7, 8, 9], [10, 11]], documents=[0, 2, 3])
    return tmp_path / "tiny"


def write_data(prefix: Path, sentences: list[list[int]], documents: list[int]) -> None:
    """Megatron's .bin/.idx by hand: uint16 tokens."""
    lengths = [len(sentence) for sentence in sentences]
    pointers = [2 * sum(lengths[:i]) for i in range(len(lengths))]
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(documents))
    body = struct.pack(f"<{len(lengths)}i{len(lengths)}q{len(documents)}q", *lengths, *pointers, *documents)
    prefix.with_suffix(".idx").write_bytes(header + body)
    tokens = [token for sentence in sentences for token in sentence]
    prefix.with_suffix(".bin").write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))


def flags(data: Path, **changes: str | None) -> list[str]:
    """A command line that works, with flags changed or (None) taken out."""
    settings: dict[str, str | None] = {
        "--num-layers": "4",
        "--hidden-size": "64",
        "--num-attention-heads": "4",
        "--seq-length": "32",
        "--micro-batch-size": "2",
        "--train-iters": "10",
        "--lr": "1e-3",
        "--data-path": str(data),
        "--vocab-file": str(data.parent / "vocab.txt"),
        "--split": "1,1,0",
    }
    settings |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
    return [part for name, value in settings.items() if value is not None for part in (name, value)]


def test_defaults_follow_from_other_flags(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    args = parse_args("bert", [*flags(data), "--tensor-model-parallel-size", "2", "--swiglu"])
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
def test_every_spelling_of_a_scheme(data: Path, extra: list[str], scheme: str, placement: str) -> None:
    args = parse_args("bert", [*flags(data), *extra])
    assert (args.depth_scheme, args.norm_placement) == (scheme, placement)


def test_original_names_set_the_residual(data: Path) -> None:
    original = ["--moment-control-sigma", "--moment-control-lambda-beta", "--moment-control-lambda-sq", "0.995"]
    args = parse_args("bert", [*flags(data), *original, "--moment-control-beta-sq", "0.005"])
    assert (args.scheme_options.lambda_sq, args.scheme_options.beta_sq) == (0.995, 0.005)


MISTAKES: list[tuple[str, dict[str, str | None], list[str], list[str]]] = [
    ("unknown scheme", {"depth_scheme": "nope"}, [], ["--depth-scheme", "nope"]),
    ("required flag", {"lr": None}, [], ["--lr"]),
    ("not a number", {"lr": "fast"}, [], ["--lr", "fast"]),
    ("not finite", {"lr": "nan"}, [], ["--lr", "finite"]),
    ("unknown flag", {}, ["--nonsense"], ["--nonsense"]),
    ("negative", {"num_layers": "-4"}, [], ["--num-layers"]),
    ("dropout of one", {"hidden_dropout": "1"}, [], ["--hidden-dropout"]),
    ("layout", {"tensor_model_parallel_size": "3"}, [], ["--tensor-model-parallel-size 3", "2 ranks"]),
    ("heads", {"num_attention_heads": "5"}, [], ["--num-attention-heads"]),
    ("heads by TP", {"num_attention_heads": "1", "tensor_model_parallel_size": "2"}, [], ["--num-attention-heads"]),
    ("layers by PP", {"num_layers": "5", "pipeline_model_parallel_size": "2"}, [], ["--num-layers 5"]),
    ("SP without TP", {}, ["--sequence-parallel"], ["--sequence-parallel"]),
    ("batch", {"global_batch_size": "5"}, [], ["--global-batch-size 5"]),
    ("warm-up", {"lr_warmup_iters": "10"}, [], ["--lr-warmup-iters"]),
    ("min lr", {"min_lr": "1"}, [], ["--min-lr"]),
    ("k too large", {"dslm_k": "4"}, ["--dslm"], ["--dslm-k 4", "lambda^2"]),
    (
        "sum of squares",
        {"dslm_lambda_sq": "0.9", "dslm_beta_sq": "0.2"},
        ["--dslm"],
        ["--dslm-lambda-sq", "--dslm-beta-sq"],
    ),
    ("k and lambda", {"dslm_k": "1", "dslm_lambda_sq": "0.9"}, ["--dslm"], ["--dslm-k", "--dslm-lambda-sq"]),
    ("two schemes", {"depth_scheme": "xavier"}, ["--dslm"], ["--dslm", "--depth-scheme xavier"]),
    (
        "half of the original's",
        {},
        ["--moment-control-sigma"],
        ["--moment-control-sigma", "--moment-control-lambda-beta"],
    ),
    ("k without dslm", {"dslm_k": "1"}, [], ["--dslm-k"]),
    ("std with dslm", {"init_method_std": "0.01"}, ["--dslm"], ["--init-method-std"]),
    ("two placements", {"norm_placement": "pre"}, ["--apply-residual-connection-post-layernorm"], ["--norm-placement"]),
    ("two activations", {"activation": "relu"}, ["--swiglu"], ["--swiglu", "--activation relu"]),
    ("split", {"split": "90,10"}, [], ["--split"]),
    ("split without a document", {"split": "98,1,1"}, [], ["--split 98,1,1", "none of the 2 documents", "validation"]),
    ("no data", {"data_path": None}, [], ["--data-path"]),
    ("missing data", {"data_path": "absent/prefix"}, [], ["--data-path", "absent/prefix.idx"]),
    ("missing vocabulary", {"vocab_file": "absent.txt"}, [], ["--vocab-file", "absent.txt"]),
    ("save interval alone", {"save_interval": "5"}, [], ["--save-interval", "--save"]),
    ("save into a file", {"save": __file__ + "/x"}, [], ["--save"]),
    ("tokenizer", {"tokenizer_type": "GPT2BPETokenizer"}, [], ["--tokenizer-type"]),
]


@pytest.mark.parametrize(("changes", "extra", "named"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line_that_names_the_flag(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str | None],
    extra: list[str],
    named: list[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    expect_one_line([*flags(data, **changes), *extra], capsys, named)


def expect_one_line(argv: list[str], capsys: pytest.CaptureFixture[str], named: list[str]) -> None:
    """Exit code 2 and one line on standard error with all of `named` in it."""
    with pytest.raises(SystemExit) as exit_info:
        parse_args("bert", argv)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in named:
        assert part in error


def test_only_the_first_rank_speaks(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("megatron.dslm.one_line_parser.SECONDS_FOR_THE_FIRST_RANK", 0.0)
    with pytest.raises(SystemExit) as exit_info:
        parse_args("bert", flags(data, lr="nan"))
    assert (exit_info.value.code, capsys.readouterr().err) == (2, "")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda prefix: prefix.with_suffix(".bin").write_bytes(b""), [".bin", "empty"]),
        (lambda prefix: prefix.with_suffix(".idx").write_bytes(b"PK not an index, but long enough to read"), ["index"]),
        (lambda prefix: prefix.with_suffix(".bin").write_bytes(b"ab"), ["2 bytes", "14"]),
        (lambda prefix: os.truncate(prefix.with_suffix(".idx"), 20), ["index"]),
        (lambda prefix: os.truncate(prefix.with_suffix(".idx"), 40), ["cut short"]),
        (lambda prefix: write_data(prefix, [[5, 99]], [0, 1]), ["one sentence a document"]),
        (lambda prefix: write_data(prefix, [[5, 99], [6], [7]], [0, 2, 3]), ["token 99", "--vocab-file", "13"]),
    ],
)
def test_damaged_data_is_named(
    data: Path, capsys: pytest.CaptureFixture[str], damage: object, named: list[str]
) -> None:
    damage(data)  # type: ignore[operator]
    expect_one_line(flags(data), capsys, ["--data-path", *named])
