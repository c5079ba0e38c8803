"""A tiny trainer out of plain megatron-core, nothing of this project in it, to compare with."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.bert.bert_layer_specs import bert_layer_local_spec
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.enums import AttnBackend

VOCABULARY, SEQUENCE, GLOBAL_BATCH = 64, 16, 4


def tiny_config(**overrides: Any) -> TransformerConfig:
    """Four layers of width 32, without the fused kernels that need CUDA, split as parallel_state says."""
    settings: dict[str, Any] = {
        "num_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "attention_backend": AttnBackend.local,
        "gradient_accumulation_fusion": False,
        "masked_softmax_fusion": False,
        "bias_dropout_fusion": False,
        "bias_activation_fusion": False,
        "persist_layer_norm": False,
        "pipeline_dtype": torch.float32,
        "tensor_model_parallel_size": parallel_state.get_tensor_model_parallel_world_size(),
        "pipeline_model_parallel_size": parallel_state.get_pipeline_model_parallel_world_size(),
        "virtual_pipeline_model_parallel_size": (parallel_state.get_virtual_pipeline_model_parallel_world_size()),
    }
    if settings["virtual_pipeline_model_parallel_size"] is not None:
        # On two stages, next and previous are one rank, and a batch of sends would match in the wrong order.
        settings.update(overlap_p2p_comm=True, batch_p2p_comm=False)
    return TransformerConfig(**{**settings, **overrides})


def build_chunks(kind: str, config: TransformerConfig) -> list[torch.nn.Module]:
    """This rank's model chunks: one, or one per virtual pipeline stage."""
    return [_build_chunk(kind, config, v) for v in range(config.virtual_pipeline_model_parallel_size or 1)]


def _build_chunk(kind: str, config: TransformerConfig, virtual_stage: int) -> torch.nn.Module:
    stage = None if config.virtual_pipeline_model_parallel_size is None else virtual_stage
    common = {
        "config": config,
        "vocab_size": VOCABULARY,
        "max_sequence_length": SEQUENCE,
        "pre_process": parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
        "post_process": parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
        "share_embeddings_and_output_weights": True,
        "vp_stage": stage,
    }
    model: Any
    if kind == "gpt":
        model = GPTModel(transformer_layer_spec=get_gpt_layer_local_spec(), **common)
    else:
        model = BertModel(num_tokentypes=2, transformer_layer_spec=bert_layer_local_spec, **common)
    # Half precision, as Megatron-LM's Float16Module does, less its conversion of inputs and outputs.
    return model.to(config.params_dtype)


def batches(first: int, steps: int) -> Iterator[dict[str, torch.Tensor]]:
    """Micro-batches of one sample, of `steps` steps from step `first` on: this data-parallel rank's share of
    global batches that are the same in every layout."""
    generator = torch.Generator().manual_seed(7)
    dp_size, dp_rank = parallel_state.get_data_parallel_world_size(), parallel_state.get_data_parallel_rank()
    share = GLOBAL_BATCH // dp_size
    for step in range(first + steps):
        tokens = torch.randint(VOCABULARY, (GLOBAL_BATCH, SEQUENCE + 1), generator=generator)
        if step < first:
            continue
        for sample in tokens[dp_rank * share : (dp_rank + 1) * share]:
            yield {"tokens": sample[None, :-1], "labels": sample[None, 1:]}


def forward_step(kind: str, iterator: Iterator, model: torch.nn.Module) -> tuple[Any, Callable]:
    """One micro-batch through one chunk, as the pipeline schedules call it."""
    batch = next(iterator)
    tokens, labels = batch["tokens"], batch["labels"]
    if kind == "gpt":
        positions = torch.arange(SEQUENCE)[None]
        mask = torch.ones(1, 1, SEQUENCE, SEQUENCE).triu(1).bool()
        output = model(tokens, positions, mask, labels=labels)
    else:
        output = model(tokens, torch.ones_like(tokens), torch.zeros_like(tokens), lm_labels=labels)
    return output, partial(loss_of, kind)


def loss_of(kind: str, output: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean token loss, and for BERT the loss of its binary head against class 0."""
    if kind == "gpt":
        loss = output.float().mean()
    else:
        token_losses, binary_logits = output
        binary_loss = torch.nn.functional.cross_entropy(binary_logits.float(), torch.zeros(1).long())
        loss = token_losses.float().mean() + binary_loss
    # A copy: the schedule divides the loss by the number of micro-batches in place.
    return loss, {"loss": loss.detach().clone()}


class Trainer:
    """Model, DDP, optimizer and pipeline schedule, all megatron-core's."""

    def __init__(self, kind: str, overlap: bool = False, distributed_optimizer: bool = False, **config: Any):
        self.kind = kind
        self.config = tiny_config(**config)
        bf16 = self.config.params_dtype is torch.bfloat16
        ddp_config = DistributedDataParallelConfig(
            use_distributed_optimizer=distributed_optimizer,
            overlap_grad_reduce=overlap,
            overlap_param_gather=overlap and distributed_optimizer,
            grad_reduce_in_fp32=True,
        )
        self.bare_chunks: list[Any] = build_chunks(kind, self.config)
        self.chunks: list[Any] = [
            DistributedDataParallel(self.config, ddp_config, chunk, disable_bucketing=index > 0)
            for index, chunk in enumerate(self.bare_chunks)
        ]
        optimizer_config = OptimizerConfig(
            lr=1e-3,
            bf16=bf16,
            params_dtype=self.config.params_dtype,
            use_distributed_optimizer=distributed_optimizer,
            overlap_param_gather=overlap and distributed_optimizer,
            log_num_zeros_in_grad=True,
        )
        self.optimizer = get_megatron_optimizer(optimizer_config, self.chunks)
        self.config.finalize_model_grads_func = finalize_model_grads
        self.config.grad_scale_func = self.optimizer.scale_loss
        if overlap:
            self.config.no_sync_func = [chunk.no_sync for chunk in self.chunks]
            if len(self.chunks) == 1:
                self.config.no_sync_func = self.config.no_sync_func[0]

    def train(self, steps: int, first: int = 0) -> tuple[list[float], list[float]]:
        """Losses (empty on ranks before the last stage) and gradient norms of `steps` optimizer steps."""
        iterators = [batches(first, steps) for _ in self.chunks]
        losses: list[float] = []
        norms: list[float] = []
        for _ in range(steps):
            losses += self.step(iterators, norms)
        return losses, norms

    def step(self, iterators: list[Iterator], norms: list[float]) -> list[float]:
        """One optimizer step; the mean loss over this step's global batch, if this is a last stage."""
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        micro_batches = GLOBAL_BATCH // parallel_state.get_data_parallel_world_size()
        interleaved = len(self.chunks) > 1
        reports = get_forward_backward_func()(
            forward_step_func=partial(forward_step, self.kind),
            data_iterator=iterators if interleaved else iterators[0],
            model=self.chunks if interleaved else self.chunks[0],
            num_microbatches=micro_batches,
            seq_length=SEQUENCE,
            micro_batch_size=1,
            forward_only=False,
        )
        successful, norm, _zeros = self.optimizer.step()
        assert successful
        norms.append(float(norm))
        if not reports:
            return []
        loss = torch.stack([report["loss"] for report in reports]).mean()
        torch.distributed.all_reduce(loss, group=parallel_state.get_data_parallel_group())
        return [float(loss) / parallel_state.get_data_parallel_world_size()]

    def sharded_state(self, with_optimizer: bool, is_loading: bool = False) -> dict[str, Any]:
        """What a checkpoint holds: this rank's part of the model and, if asked for, of the optimizer."""
        metadata = {
            "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
            "distrib_optim_sharding_type": "fully_reshardable",
        }
        models = {
            f"model{index}": chunk.sharded_state_dict(metadata=metadata) for index, chunk in enumerate(self.bare_chunks)
        }
        if not with_optimizer:
            return models
        # The optimizer takes a single chunk's state flat, and several by chunk.
        of_model = models if len(models) > 1 else models["model0"]
        optimizer = self.optimizer.sharded_state_dict(of_model, is_loading, metadata=metadata)
        return {**models, "optimizer": optimizer}

    def save(self, path: str, with_optimizer: bool) -> None:
        """Write a torch_dist checkpoint."""
        dist_checkpointing.save(self.sharded_state(with_optimizer), path)

    def load(self, path: str, with_optimizer: bool) -> None:
        """Read a torch_dist checkpoint that another layout may have written."""
        state = dist_checkpointing.load(self.sharded_state(with_optimizer, is_loading=True), path)
        for index, chunk in enumerate(self.bare_chunks):
            chunk.load_state_dict(state[f"model{index}"])
        if with_optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            self.optimizer.reload_model_params()
