"""The shape a depth scheme and the theory need, from checked flags alone: no model is built."""

from argparse import Namespace

from dslm_patches.schemes import ModelShape
from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from megatron.dslm.models.family import family


def padded_size(vocab_size: int, multiple: int, tensor_parallel: int = 1) -> int:
    """A vocabulary rounded up to a multiple of --make-vocab-size-divisible-by.

    Unlike Megatron-LM's, the multiple does not grow with tensor parallelism unless it has to, so that the
    logits, and with them the loss, are the same in every layout.
    """
    step = multiple
    while step % tensor_parallel:
        step += multiple
    return -(-vocab_size // step) * step


def shape_from_flags(args: Namespace, vocab_size: int, match_probability: float | None = None) -> ModelShape:
    """The shape of the model that the trainer builds from the same flags on one rank.

    It equals what `dslm_patches.mcore.model_shape` reads off the built model.

    Args:
        args: model, depth-scheme and dropout flags after `validate_model`.
        vocab_size: tokens of the vocabulary before padding.
        match_probability: sum of squared token frequencies, in place of Zipf's law over the padded vocabulary.
    """
    own = family(args.model)
    return ModelShape.of(
        num_layers=args.num_layers,
        hidden_size=args.hidden_size,
        ffn_hidden_size=args.ffn_hidden_size,
        num_heads=args.num_attention_heads,
        head_size=args.kv_channels,
        seq_length=args.seq_length,
        causal=own.causal,
        activation=FFN_ACTIVATIONS[args.activation],
        hidden_dropout=args.hidden_dropout,
        attention_dropout=args.attention_dropout,
        learned_positions=args.position_embedding_type == "learned_absolute",
        segments=own.has_segments(args),
        tied_output=not args.untie_embeddings_and_output_weights,
        vocab_size=padded_size(vocab_size, args.make_vocab_size_divisible_by),
        match_probability=match_probability,
        input_correlation=args.dslm_input_correlation,
    )
