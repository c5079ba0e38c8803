"""GPT: next-token prediction."""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from megatron.dslm.data.batches import next_batch
from megatron.dslm.data.datasets import common_dataset_arguments
from megatron.dslm.data.random_tokens import zipf_tokens
from megatron.dslm.models.build import layers_to_build, padded_vocab_size
from megatron.dslm.models.gpt.samples import GptSamples, GptSamplesConfig

_BATCH_KEYS = ("tokens", "labels", "loss_mask", "position_ids")


def provide_model(
    args: Namespace,
    config: TransformerConfig,
    *,
    pre_process: bool,
    post_process: bool,
    vp_stage: int | None,
) -> GPTModel:
    """One chunk of megatron-core's GPTModel."""
    return GPTModel(
        config=config,
        transformer_layer_spec=layers_to_build(args, "gpt"),
        vocab_size=padded_vocab_size(args),
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type,
        rotary_percent=args.rotary_percent,
        rotary_base=args.rotary_base,
        vp_stage=vp_stage,
    )


def dataset(args: Namespace) -> tuple[type, GptSamplesConfig]:
    """megatron-core's GPT samples: documents end to end, cut into sequences."""
    return GptSamples, GptSamplesConfig(
        **common_dataset_arguments(args),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        # The attention modules make the causal mask themselves.
        create_attention_mask=False,
    )


def forward_step(data_iterator: Iterator[Any], model: Any) -> tuple[Tensor, Any]:
    """One micro-batch through this rank's chunk, in the form megatron-core's schedules call."""
    batch = next_batch(data_iterator, _BATCH_KEYS)
    output = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"])
    return output, partial(_loss, batch["loss_mask"])


def _loss(loss_mask: Tensor, token_losses: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    # The reported losses are copies: megatron-core divides the returned one by the micro-batches in place.
    mask = loss_mask.view(-1).float()
    loss = torch.sum(token_losses.float().view(-1) * mask) / mask.sum().clamp(min=1.0)
    return loss, {"lm loss": loss.detach().clone()}


def random_batch(args: Namespace, vocab_size: int) -> dict[str, Tensor]:
    """One micro-batch of random tokens with the keys of the samples, a function of args.seed."""
    size, length = args.micro_batch_size, args.seq_length
    tokens = zipf_tokens(size, length + 1, vocab_size, torch.Generator().manual_seed(args.seed))
    return {
        "tokens": tokens[:, :-1].contiguous(),
        "labels": tokens[:, 1:].contiguous(),
        "loss_mask": torch.ones(size, length),
        "position_ids": torch.arange(length).expand(size, length),
    }
