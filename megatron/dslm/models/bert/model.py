"""BERT: masked LM and next-sentence prediction."""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer import TransformerConfig
from megatron.core.utils import unwrap_model
from torch import Tensor

from megatron.dslm.data.batches import to_device
from megatron.dslm.data.datasets import common_dataset_arguments
from megatron.dslm.data.random_tokens import zipf_tokens
from megatron.dslm.models.bert.labelled import LabelledBert, labelled, sequence_part
from megatron.dslm.models.bert.samples import BertSamples, BertSamplesConfig
from megatron.dslm.models.build import layers_to_build, padded_vocab_size
from megatron.dslm.models.rotary import set_rotary_base

_BATCH_KEYS = ("text", "types", "labels", "is_random", "loss_mask", "padding_mask")


def provide_model(
    args: Namespace,
    config: TransformerConfig,
    *,
    pre_process: bool,
    post_process: bool,
    vp_stage: int | None,
) -> LabelledBert:
    """One chunk of megatron-core's BertModel, its masked-LM head on the labelled positions alone."""
    binary_head = not args.bert_no_binary_head
    model = LabelledBert(
        config=config,
        num_tokentypes=2 if binary_head else 0,
        transformer_layer_spec=layers_to_build(args, "bert"),
        vocab_size=padded_vocab_size(args),
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type,
        rotary_percent=args.rotary_percent,
        add_binary_head=binary_head,
        vp_stage=vp_stage,
    )
    set_rotary_base(model, args.rotary_percent, args.rotary_base)
    return model


def dataset(args: Namespace) -> tuple[type, BertSamplesConfig]:
    """megatron-core's BERT samples: sentence pairs, WordPiece masking."""
    return BertSamples, BertSamplesConfig(
        **common_dataset_arguments(args),
        masking_probability=args.mask_prob,
        short_sequence_probability=args.short_seq_prob,
        masking_max_ngram=3,
        masking_do_full_word=True,
        masking_do_permutation=False,
        masking_use_longer_ngrams=False,
        masking_use_geometric_distribution=False,
        classification_head=not args.bert_no_binary_head,
    )


def forward_step(data_iterator: Iterator[Any], model: Any) -> tuple[Tensor, Any]:
    """One micro-batch through this rank's chunk, in the form megatron-core's schedules call."""
    host = next(data_iterator)
    batch, bert = to_device(host, _BATCH_KEYS), unwrap_model(model)
    types = batch["types"] if bert.add_binary_head else None
    if isinstance(bert, LabelledBert) and bert.post_process and not bert.in_full:
        chosen = labelled(host["labels"], host["loss_mask"], *sequence_part(bert.config.sequence_parallel))
        chosen = chosen.to(batch["text"].device)
        output = model(batch["text"], batch["padding_mask"], tokentype_ids=types, labelled=chosen)
        return output, partial(_loss, chosen.weights, batch["is_random"])
    output = model(batch["text"], batch["padding_mask"], tokentype_ids=types, lm_labels=batch["labels"])
    return output, partial(_loss, batch["loss_mask"], batch["is_random"])


def _loss(
    loss_mask: Tensor, is_random: Tensor, output: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, dict[str, Tensor]]:
    token_losses, binary_logits = output
    # The reported losses are copies: megatron-core divides the returned one by the micro-batches in place.
    mask = loss_mask.view(-1).float()
    lm_loss = torch.sum(token_losses.float().view(-1) * mask) / mask.sum().clamp(min=1.0)
    if binary_logits is None:
        return lm_loss, {"lm loss": lm_loss.detach().clone()}
    nsp_loss = F.cross_entropy(binary_logits.view(-1, 2).float(), is_random.view(-1).long())
    return lm_loss + nsp_loss, {"lm loss": lm_loss.detach().clone(), "nsp loss": nsp_loss.detach().clone()}


def random_batch(args: Namespace, vocab_size: int) -> dict[str, Tensor]:
    """One micro-batch of random tokens with the keys of the samples, a function of args.seed.

    Two segments part at a uniform position; args.mask_prob of the tokens are to be predicted.
    """
    generator = torch.Generator().manual_seed(args.seed)
    size, length = args.micro_batch_size, args.seq_length
    tokens = zipf_tokens(size, length + 1, vocab_size, generator)
    boundary = torch.rand(size, 1, generator=generator) * length
    predicted = torch.rand(size, length, generator=generator) < args.mask_prob
    return {
        "text": tokens[:, :-1].contiguous(),
        "types": (torch.arange(length).expand(size, length) >= boundary).long(),
        "labels": torch.where(predicted, tokens[:, 1:], -1),
        "is_random": torch.randint(2, (size,), generator=generator),
        "loss_mask": predicted.long(),
        "padding_mask": torch.ones(size, length, dtype=torch.long),
    }
