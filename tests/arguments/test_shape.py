"""The shape from flags is the built model's, and so is the scheme that follows from it."""

import argparse

import pytest

from dslm_patches.errors import UserError
from dslm_patches.schemes import build_scheme
from megatron.dslm.arguments.validate import validate_model
from megatron.dslm.config.flags import add_section
from megatron.dslm.models.sections import model_sections
from megatron.dslm.models.shape import padded_size, shape_from_flags
from tests.distributed.pool import RankPool

SIZES = "--num-layers 3 --hidden-size 32 --num-attention-heads 4 --seq-length 16"
CASES = [
    ("bert", "--dslm", 200),
    ("bert", "--dslm --bert-no-binary-head --activation relu --norm-placement post --ffn-hidden-size 48", 128),
    ("bert", "--dslm --dslm-input-correlation 0.3 --max-position-embeddings 64 --hidden-dropout 0", 129),
    ("gpt", "--dslm", 300),
    ("gpt", "--dslm --swiglu --position-embedding-type rope --untie-embeddings-and-output-weights", 300),
    ("gpt", "--depth-scheme xavier --activation geglu --group-query-attention --num-query-groups 2", 250),
    ("gpt", "--kv-channels 4 --attention-dropout 0.3 --make-vocab-size-divisible-by 7 --init-method-std 0.1", 250),
]


def from_flags(model: str, words: list[str]) -> argparse.Namespace:
    """Checked model, depth-scheme and dropout flags."""
    parser = argparse.ArgumentParser()
    for section in model_sections(model):
        add_section(parser, section)
    args = parser.parse_args(words)
    args.model = model
    validate_model(args)
    return args


@pytest.mark.parametrize(("model", "extra", "vocab_size"), CASES)
def test_shape_and_scheme_are_those_of_the_built_model(
    ranks: RankPool, model: str, extra: str, vocab_size: int
) -> None:
    words = [*SIZES.split(), *extra.split()]
    worker = "tests.arguments.shape_workers:built"
    ((shape, scheme),) = ranks.run(1, worker, layout={}, model=model, flags=words, vocab_size=vocab_size)
    args = from_flags(model, words)
    ours = shape_from_flags(args, vocab_size)
    assert ours == shape
    assert build_scheme(args.depth_scheme, ours, args.scheme_options) == scheme


def test_the_padding_of_the_vocabulary_is_part_of_the_input_correlation() -> None:
    args = from_flags("gpt", SIZES.split())
    assert shape_from_flags(args, 129) == shape_from_flags(args, 256)
    assert shape_from_flags(args, 129).input_correlation < shape_from_flags(args, 128).input_correlation


def test_a_recorded_activation_that_is_not_known_is_named() -> None:
    args = from_flags("gpt", SIZES.split())
    args.activation = "tanh"
    with pytest.raises(UserError, match=r"--activation must be one of gelu, .*, not tanh"):
        validate_model(args)


@pytest.mark.parametrize(
    ("vocab_size", "multiple", "tensor_parallel", "padded"),
    [(1, 128, 1, 128), (128, 128, 1, 128), (129, 128, 4, 256), (10, 3, 1, 12), (10, 3, 2, 12), (13, 3, 2, 18)],
)
def test_padded_size(vocab_size: int, multiple: int, tensor_parallel: int, padded: int) -> None:
    assert padded_size(vocab_size, multiple, tensor_parallel) == padded
