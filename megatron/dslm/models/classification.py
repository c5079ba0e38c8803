"""BERT with a head on its pooler: classes, a score, or a choice between texts."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor, nn

from megatron.dslm.data.batches import next_batch
from megatron.dslm.models.build import ModelProvider, layers_to_build, padded_vocab_size
from megatron.dslm.models.rotary import set_rotary_base
from megatron.dslm.tasks import Task

_BATCH_KEYS = ("text", "types", "padding_mask", "labels", "index")


class BertForClassification(BertModel):
    """megatron-core's BertModel whose last stage ends in pooler, dropout and a linear head.

    Its tensors have the names of the pretrained model's, so that a pretraining checkpoint fills all but the head.
    It has no masked-LM head.
    """

    def __init__(self, *args: Any, outputs: int, **kwargs: Any) -> None:
        super().__init__(*args, share_embeddings_and_output_weights=False, **kwargs)
        self.has_head: bool = kwargs["post_process"]
        if self.has_head:
            del self.lm_head, self.output_layer, self.binary_head
            self.head_dropout = nn.Dropout(self.config.hidden_dropout)
            self.classification_head = nn.Linear(self.config.hidden_size, outputs)
        # megatron-core's forward then ends with the encoder's output, and no output layer is looked for.
        self.post_process = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor, tokentype_ids: Tensor | None = None) -> Tensor:
        """Logits [b, outputs] on the last stage, hidden states [s, b, h] on the others; input [b, s]."""
        hidden_states = super().forward(input_ids, attention_mask, tokentype_ids)
        if not self.has_head:
            return hidden_states
        return self.classification_head(self.head_dropout(self.pooler(hidden_states, 0)))


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
        model = BertForClassification(
            config=config,
            num_tokentypes=0 if args.bert_no_binary_head else 2,
            transformer_layer_spec=layers_to_build(args, "bert"),
            vocab_size=padded_vocab_size(args),
            max_sequence_length=args.max_position_embeddings,
            pre_process=pre_process,
            post_process=post_process,
            position_embedding_type=args.position_embedding_type,
            rotary_percent=args.rotary_percent,
            # The pooler, which is new where the model was pretrained without one.
            add_binary_head=True,
            vp_stage=vp_stage,
            outputs=task.outputs,
        )
        # As the pretrained model was: a token-type table only beside a binary head.
        model.add_binary_head = not args.bert_no_binary_head
        set_rotary_base(model, args.rotary_percent, args.rotary_base)
        return model

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
