"""Builds the trainer's model from flags, inside a rank."""

from types import SimpleNamespace

from dslm_patches.mcore import model_shape
from dslm_patches.schemes import DepthScheme, ModelShape
from megatron.dslm.arguments.parse import build_parser
from megatron.dslm.arguments.validate import validate
from megatron.dslm.models.build import build_chunks
from megatron.dslm.models.family import family

TRAINING = "--micro-batch-size 1 --train-iters 1 --lr 1e-3 --data-path x --vocab-file x --merge-file x"


def built(model: str, flags: list[str], vocab_size: int) -> tuple[ModelShape, DepthScheme]:
    """The shape read off the built model, and the scheme the trainer put on it."""
    training = TRAINING if model == "gpt" else TRAINING.replace(" --merge-file x", "")
    args = build_parser(model).parse_args([*flags, *training.split()])
    args.model, args.world_size, args.rank = model, 1, 0
    validate(args)
    args.tokenizer = SimpleNamespace(vocab_size=vocab_size)
    (chunk,), scheme = build_chunks(args, family(model).model().provide_model)
    return model_shape(chunk, seq_length=args.seq_length, input_correlation=args.dslm_input_correlation), scheme
