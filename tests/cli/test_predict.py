"""`dslm predict`: the theory's numbers for the trainer's flags, on the terminal, as JSON and as a figure."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dslm_patches.schemes import ModelShape, SchemeOptions, build_scheme
from dslm_patches.schemes.prediction import predict
from dslm_patches.theory.embeddings import SEGMENT_MATCH
from dslm_patches.theory.moments import Moments, OutsideTheoryWarning
from megatron.dslm.cli import predict as command
from megatron.dslm.cli.main import main

BERT = "predict bert --num-layers 6 --hidden-size 64 --num-attention-heads 4 --seq-length 32"
GPT = "predict gpt --num-layers 3 --hidden-size 64 --num-attention-heads 4 --seq-length 32"


def rows(text: str) -> list[list[float]]:
    """The numbers of the printed table."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"]) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("layer 0 is"))
    return [[float(word) for word in line.split()] for line in lines[start:end]]


def predicted(words: str, tmp_path: Path) -> dict[str, Any]:
    """What --json holds."""
    assert main([*words.split(), "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def bert_shape(**changes: Any) -> ModelShape:
    """The shape of `BERT`, written out; 0.1 is the dropout the trainer takes by default."""
    settings = {
        "num_layers": 6,
        "hidden_size": 64,
        "ffn_hidden_size": 256,
        "attention_size": 64,
        "head_size": 16,
        "seq_length": 32,
        "causal": False,
        "activation": "gelu",
        "gated": False,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "embedding_tables": 3,
        "tied_output": True,
        "input_correlation": 0.25,
    }
    return ModelShape(**{**settings, **changes})


def test_the_table_is_the_theorys_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    options = SchemeOptions(norm_placement="post", k=1.5)
    shape = bert_shape(activation="relu", hidden_dropout=0.2)
    top = Moments.correlated(1.0, 0.3)
    scheme = build_scheme("dslm", shape, options)
    with pytest.warns(OutsideTheoryWarning, match="Post-LN"):
        profile = predict(shape, scheme, top_gradient=top, norm_epsilon=1e-3)
    extra = "--dslm --dslm-k 1.5 --norm-placement post --activation relu --hidden-dropout 0.2 --norm-epsilon 1e-3"
    words = f"{BERT} {extra} --dslm-input-correlation 0.25 --top-gradient-correlation 0.3"
    assert main(words.split()) == 0
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "Post-LN models were measured 5 to 20 % above" in output.err
    assert "dslm, post-LN" in output.out
    printed = rows(output.out)
    assert [row[0] for row in printed] == list(range(7))
    for row, forward, gradient in zip(printed, profile.forward, profile.gradient, strict=True):
        wanted = [forward.mean_variance, forward.correlation, gradient.mean_variance]
        assert row[1:] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_what_the_theory_covers_is_predicted_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"{BERT} --dslm".split()) == 0
    assert capsys.readouterr().err == ""


def test_top_gradient_and_dropout_reach_the_prediction(tmp_path: Path) -> None:
    plain = predicted(f"{GPT} --dslm", tmp_path)["layers"]
    correlated = predicted(f"{GPT} --dslm --top-gradient-correlation 0.5", tmp_path)["layers"]
    dropout = predicted(f"{GPT} --dslm --attention-dropout 0.5", tmp_path)["layers"]
    assert plain[-1]["gradient_variance"] == correlated[-1]["gradient_variance"] == 1.0
    assert (plain[-1]["gradient_correlation"], correlated[-1]["gradient_correlation"]) == (0.0, pytest.approx(0.5))
    assert correlated[0]["gradient_variance"] > 1.05 * plain[0]["gradient_variance"]
    assert dropout[0]["gradient_variance"] != pytest.approx(plain[0]["gradient_variance"], rel=1e-3)


def test_token_frequencies_set_the_input_correlation(tmp_path: Path) -> None:
    (tmp_path / "counts.txt").write_text("30\n\n10\n0\n10\n")
    frequencies = f"--vocab-size 100 --token-frequencies {tmp_path}/counts.txt"
    match = 0.6**2 + 2 * 0.2**2
    bert = predicted(f"{BERT} {frequencies}", tmp_path)["shape"]["input_correlation"]
    gpt = predicted(f"{GPT} {frequencies}", tmp_path)["shape"]["input_correlation"]
    assert (bert, gpt) == (pytest.approx((match + SEGMENT_MATCH) / 3), pytest.approx(match / 2))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1\ntwo\n", "line 2"),
        ("1\n-1\n", "line 2"),
        ("nan\n", "line 1"),
        ("0\n0\n", "above 0"),
        ("", "above 0"),
        ("1\n" * 101, "--vocab-size 100"),
    ],
)
def test_damaged_frequencies_are_named(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "counts.txt").write_text(text)
    with pytest.raises(SystemExit) as exit_info:
        main([*BERT.split(), "--vocab-size", "100", "--token-frequencies", str(tmp_path / "counts.txt")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.startswith("dslm predict: error: --token-frequencies")
    assert error.count("\n") == 1
    assert named in error


def test_a_long_model_is_printed_in_part_and_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = BERT.replace("--num-layers 6", "--num-layers 100")
    layers = predicted(f"{words} --depth-scheme xavier", tmp_path)["layers"]
    output = capsys.readouterr().out
    shown = rows(output)
    assert [layer["layer"] for layer in layers] == list(range(101))
    assert (len(shown), shown[0][0], shown[-1][0]) == (24, 0, 100)
    assert "24 of 101 rows" in output
    assert shown[-1][1] == pytest.approx(layers[-1]["forward_variance"], rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 47, 193, 1001])
def test_chosen_rows_are_even_and_have_both_ends(count: int) -> None:
    chosen = command.chosen_rows(count)
    steps = {after - before for before, after in pairwise(chosen)}
    assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, min(count, command.ROWS))
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_leaving_the_theorys_domain_is_one_line_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    # Heads of 8 features, and queries and keys so large that the logits' variance is far above what was checked.
    words = BERT.replace("--num-attention-heads 4", "--num-attention-heads 8")
    assert main(f"{words} --init-method-std 0.2".split()) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert all(line.startswith("dslm predict: warning: outside the theory's domain: attention: ") for line in lines)
    assert "more of the kind" in lines[0]
    assert sum("logits of variance" in line for line in lines) == 1
    assert sum("heads of 8 features" in line for line in lines) == 1


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_plot_is_written_in_the_format_of_its_name(suffix: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"profile{suffix}"
    assert main([*BERT.split(), "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("values", "scale"), [([1.0, 9.0], None), ([1.0, 11.0], "log"), ([0.0, 1.0], "log"), ([1.0, 1.0], None)]
)
def test_a_wide_span_is_drawn_on_a_log_scale(values: list[float], scale: str | None) -> None:
    assert command.vertical_axis("forward_variance", values).get("yscale") == scale
    assert "yscale" not in command.vertical_axis("token_correlation", values)
