"""BERT with a head on its pooler: classes, a score, or a choice between texts."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from megatron.core.enums import ModelType
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.bert.pooler import Pooler
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.transformer_block import TransformerBlock
from torch import Tensor, nn

from megatron.dslm.data.batches import next_batch
from megatron.dslm.models.bert_classifier import ENCODER
from megatron.dslm.models.build import layers_to_build, padded_vocab_size
from megatron.dslm.models.family import ModelProvider
from megatron.dslm.models.rotary import set_rotary_base
from megatron.dslm.tasks import Task

_BATCH_KEYS = ("text", "types", "padding_mask", "labels", "index")


class BertForClassification(BertModel):
    """megatron-core's embeddings and encoder, on the last stage with pooler, dropout and a linear head.

    Its tensors have the names of the pretrained BertModel's, so that a pretraining checkpoint fills all but the head.

    Args:
        segments: tokens have types, with a table of embeddings for them.
        outputs: of the head.
    """

    def __init__(
        self,
        config: TransformerConfig,
        transformer_layer_spec: ModuleSpec,
        *,
        vocab_size: int,
        max_sequence_length: int,
        pre_process: bool,
        post_process: bool,
        position_embedding_type: Literal["learned_absolute", "rope"],
        rotary_percent: float,
        rotary_base: int,
        segments: bool,
        outputs: int,
        vp_stage: int | None,
    ) -> None:
        LanguageModule.__init__(self, config=config)  # BertModel's own builds the heads of pretraining
        self.transformer_layer_spec = transformer_layer_spec
        self.vocab_size, self.max_sequence_length = vocab_size, max_sequence_length
        self.pre_process, self.vp_stage = pre_process, vp_stage
        self.position_embedding_type = position_embedding_type
        self.share_embeddings_and_output_weights = False
        self.add_binary_head = segments  # what says in a BertModel that there are token types
        self.model_type = ModelType.encoder_or_decoder
        self.attn_mask_dimensions = self._sanity_check_attention_and_get_attn_mask_dimension()
        # There is no output layer to set up or to look for.
        self.has_head, self.post_process = post_process, False
        if pre_process:
            types = 2 if segments else 0
            self.embedding = LanguageModelEmbedding(
                config, vocab_size, max_sequence_length, position_embedding_type, num_tokentypes=types
            )
            self.setup_embeddings_and_output_layer()
        set_rotary_base(self, rotary_percent, rotary_base)
        self.encoder = TransformerBlock(
            config, transformer_layer_spec, pre_process=pre_process, post_process=post_process, vp_stage=vp_stage
        )
        if post_process:
            self.pooler = Pooler(config.hidden_size, config.init_method, config, config.sequence_parallel)
            self.head_dropout = nn.Dropout(config.hidden_dropout)
            self.classification_head = nn.Linear(config.hidden_size, outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, tokentype_ids: Tensor | None = None) -> Tensor:
        """Logits [b, outputs] on the last stage, hidden states [s, b, h] on the others; input [b, s]."""
        hidden = None  # which the encoder then has from the stage before
        if self.pre_process:
            hidden = self.embedding(input_ids, self.bert_position_ids(input_ids), tokentype_ids)
        rotary = None
        if self.position_embedding_type == "rope":
            length = self.rotary_pos_emb.get_rotary_seq_len(None, self.encoder, hidden, self.config)
            rotary = self.rotary_pos_emb(length)
        mask = self.bert_extended_attention_mask(attention_mask)
        hidden = self.encoder(hidden_states=hidden, attention_mask=mask, rotary_pos_emb=rotary)
        if not self.has_head:
            return hidden
        return self.classification_head(self.head_dropout(self.pooler(hidden, 0)))


def model_provider(task: Task) -> ModelProvider:
    """Builds chunks of the model for a task."""

    def provide_model(
        args: Namespace,
        config: TransformerConfig,
        *,
        pre_process: bool,
        post_process: bool,
        vp_stage: int | None,
    ) -> BertForClassification:
        # Micro-batches are padded to their own longest sequence: stages tell each other the shapes.
        config.variable_seq_lengths = True
        return BertForClassification(
            config,
            layers_to_build(args, ENCODER),
            vocab_size=padded_vocab_size(args),
            max_sequence_length=args.max_position_embeddings,
            pre_process=pre_process,
            post_process=post_process,
            position_embedding_type=args.position_embedding_type,
            rotary_percent=args.rotary_percent,
            rotary_base=args.rotary_base,
            segments=not args.bert_no_binary_head,
            outputs=task.outputs,
            vp_stage=vp_stage,
        )

    return provide_model


def forward_step(task: Task, *, training: bool) -> Callable[[Iterator[Any], Any], tuple[Tensor, Any]]:
    """One micro-batch through this rank's chunk, in the form megatron-core's schedules call.

    Training reports the loss; evaluation the logits [samples, classes, 1 or choices] and the samples' indices.
    """

    def step(data_iterator: Iterator[Any], model: Any) -> tuple[Tensor, Any]:
        batch = next_batch(data_iterator, _BATCH_KEYS)
        segments = None if not _has_segments(model) else batch["types"]
        output = model(batch["text"], batch["padding_mask"], segments)
        return output, partial(_loss if training else _report, task, batch)

    return step


def _has_segments(model: Any) -> bool:
    while hasattr(model, "module"):
        model = model.module
    return model.add_binary_head


def _scores(task: Task, output: Tensor) -> Tensor:
    return output.view(-1, task.choices).float() if task.choices > 1 else output.float()


def _loss(task: Task, batch: dict[str, Tensor], output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    scores, labels = _scores(task, output), batch["labels"]
    loss = F.mse_loss(scores[:, 0], labels) if task.regression else F.cross_entropy(scores, labels.long())
    # A copy: megatron-core divides the returned one by the micro-batches in place.
    return loss, {"loss": loss.detach().clone()}


def _report(task: Task, batch: dict[str, Tensor], output: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.zeros((), device=output.device), {"logits": _scores(task, output), "index": batch["index"]}
