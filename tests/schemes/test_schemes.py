"""What each scheme prescribes, as numbers of the published recipes."""

import math
import pickle
import re
from pathlib import Path

import pytest

from dslm_patches import schemes
from dslm_patches.schemes import ModelShape, OptionError, SchemeOptions, WeightRole, build_scheme, scheme_names
from dslm_patches.schemes.table import scheme_table

ROLE = WeightRole


def shape(**changes: object) -> ModelShape:
    """The authors' BERT: 192 layers, 1024 wide, 16 heads, ReLU, sequence 256."""
    settings = {
        "num_layers": 192,
        "hidden_size": 1024,
        "ffn_hidden_size": 4096,
        "attention_size": 1024,
        "head_size": 64,
        "seq_length": 256,
        "causal": False,
        "activation": "relu",
        "gated": False,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "embedding_tables": 3,
        "tied_output": True,
        "input_correlation": 0.221,
    }
    return ModelShape(**{**settings, **changes})  # type: ignore[arg-type]


def test_dslm_recipe() -> None:
    scheme = build_scheme("dslm", shape())
    d = 1024
    assert scheme.std(ROLE.WORD_EMBEDDING) ** 2 == pytest.approx(0.9 / 3)
    assert scheme.std(ROLE.QUERY, 1) ** 2 == pytest.approx(1 / d)
    assert scheme.std(ROLE.FFN_UP, 7) ** 2 == pytest.approx(math.sqrt(0.9 / 2) / d)
    assert scheme.std(ROLE.FFN_DOWN, 192) ** 2 == pytest.approx(math.sqrt(0.9 / 2) / d)
    assert scheme.std(ROLE.POOLER) ** 2 == pytest.approx(1 / d)
    assert scheme.head_scale == pytest.approx(1 / math.sqrt(0.3 * d))
    # V and O: the published first-layer 2.13, less the finite-length term of attention (4 % at length 256).
    assert scheme.std(ROLE.VALUE, 1) ** 2 * d == pytest.approx(2.13, rel=0.04)
    assert scheme.std(ROLE.VALUE, 1) > scheme.std(ROLE.VALUE, 192)
    skip, branch = scheme.layers[0].skip_scale, scheme.layers[0].branch_scale
    assert (skip**2, branch**2) == pytest.approx((1 - 2 / 192, 2 / 192))


@pytest.mark.parametrize(
    "changes",
    [
        {"causal": True, "embedding_tables": 1, "input_correlation": 0.013},
        {"activation": "silu", "gated": True, "ffn_hidden_size": 2730},
        {"attention_size": 512},
        {"activation": "gelu", "ffn_hidden_size": 2048, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    ],
)
def test_dslm_branches_have_unit_variance_by_the_theory(changes: dict[str, object]) -> None:
    from dslm_patches.theory.ffn import ffn_gain

    model = shape(**changes)
    scheme = build_scheme("dslm", model)
    keep = 1 - model.hidden_dropout
    for layer in (1, 96, 192):
        s = model.hidden_size * scheme.std(ROLE.FFN_UP, layer) ** 2
        down = model.ffn_hidden_size * scheme.std(ROLE.FFN_DOWN, layer) ** 2
        assert ffn_gain(model.activation, model.gated, s) * down / keep == pytest.approx(1.0)
        value = model.hidden_size * scheme.std(ROLE.VALUE, layer) ** 2
        output = model.attention_size * scheme.std(ROLE.ATTENTION_OUTPUT, layer) ** 2
        assert value == pytest.approx(output)


def test_megatron_scales_branch_ends_only() -> None:
    scheme = build_scheme("megatron", shape(), SchemeOptions(init_method_std=0.01))
    assert scheme.std(ROLE.FFN_DOWN, 3) == pytest.approx(0.01 / math.sqrt(384))
    assert scheme.std(ROLE.ATTENTION_OUTPUT, 3) == pytest.approx(0.01 / math.sqrt(384))
    assert {scheme.std(role, 3) for role in (ROLE.QUERY, ROLE.VALUE, ROLE.FFN_UP)} == {0.01}
    assert (scheme.layers[0].skip_scale, scheme.layers[0].branch_scale, scheme.head_scale) == (1.0, 1.0, 1.0)


def test_xavier_as_the_authors_count_fans() -> None:
    scheme = build_scheme("xavier", shape())
    assert scheme.std(ROLE.FFN_UP, 1) == pytest.approx(math.sqrt(2 / (5 * 1024)))
    assert scheme.std(ROLE.KEY, 1) == pytest.approx(math.sqrt(2 / (1024 + 64)))
    assert scheme.std(ROLE.ATTENTION_OUTPUT, 1) == pytest.approx(1 / 32)
    assert scheme.std(ROLE.BINARY_HEAD) == pytest.approx(math.sqrt(2 / 1026))


def test_cross_attention_follows_the_encoders_correlation() -> None:
    scheme = build_scheme("dslm", shape(context_correlation=0.8))
    value = 1024 * scheme.std(ROLE.CROSS_VALUE, 1) ** 2
    assert value == pytest.approx(math.sqrt(0.9 / 0.8), rel=0.01)
    assert ROLE.CROSS_VALUE not in build_scheme("dslm", shape()).layers[0].std


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SchemeOptions(k=1.0), 1 / 192),
        (SchemeOptions(k=1.0, alpha=0.5), 1 / math.sqrt(192)),
        (SchemeOptions(lambda_sq=0.995), 0.005),
        (SchemeOptions(beta_sq=0.005), 0.005),
        (SchemeOptions(lambda_sq=0.995, beta_sq=0.005), 0.005),
    ],
)
def test_residual_coefficients(options: SchemeOptions, expected: float) -> None:
    layer = build_scheme("dslm", shape(), options).layers[0]
    assert layer.branch_scale**2 == pytest.approx(expected)
    assert layer.skip_scale**2 == pytest.approx(1 - expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SchemeOptions(k=500.0), "k 500 with alpha 1"),
        (SchemeOptions(k=-1.0), "k -1"),
        (SchemeOptions(lambda_sq=0.9, beta_sq=0.3), "add up to 1"),
        (SchemeOptions(lambda_sq=1.2), "lambda_sq 1.2 and beta_sq -0.2"),
    ],
)
def test_impossible_coefficients_are_refused(options: SchemeOptions, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_scheme("dslm", shape(), options)


def test_the_error_of_an_option_is_worded_by_whoever_asked() -> None:
    with pytest.raises(OptionError) as caught:
        build_scheme("dslm", shape(), SchemeOptions(k=500.0))
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.fields == ("k", "alpha")
    assert str(error) == str(caught.value)
    assert error.worded("--dslm-{}".format).startswith("--dslm-k 500 with --dslm-alpha 1 over 192 layers")


def test_schemes_know_no_flags() -> None:
    for path in Path(schemes.__path__[0]).glob("*.py"):
        assert not re.search("--[a-z]", path.read_text()), path


def test_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(ValueError, match="dslm, megatron, xavier"):
        build_scheme("nope", shape())
    assert scheme_names() == ["dslm", "megatron", "xavier"]


def test_table_shows_first_middle_and_last_layer() -> None:
    scheme = build_scheme("dslm", shape())
    table = scheme_table(scheme, [ROLE.WORD_EMBEDDING, ROLE.QUERY, ROLE.VALUE])
    assert f"{scheme.std(ROLE.VALUE, 1):.6g} / {scheme.std(ROLE.VALUE, 97):.6g}" in table
    assert "query                  0.03125" in table
