"""The trainers that the throughput benchmark compares: this project's, Hugging Face's models, plain megatron-core."""

import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import dslm_patches.cpu

dslm_patches.cpu.install()  # before megatron-core is imported

# isort: split
from megatron.dslm.arguments.parse import build_parser
from megatron.dslm.arguments.validate import validate
from megatron.dslm.models.build import padded_vocab_size
from megatron.dslm.models.family import family

BATCHES = 8
"""Different batches that every trainer goes round."""

Step = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """A model and its batch; heads are 64 wide, the FFN four times the hidden size.

    What three trainers are asked for, in flags or in a configuration of theirs; `ModelShape` is what a built model is.
    """

    model: str
    layers: int
    hidden: int
    seq: int
    batch: int
    vocab: int


def arguments(shape: Shape, dtype: str, *more: str) -> Namespace:
    """The project's arguments of a shape, but for the files of a tokenizer: only the vocabulary's size counts here."""
    line = f"""--num-layers {shape.layers} --hidden-size {shape.hidden} --num-attention-heads {shape.hidden // 64}
        --seq-length {shape.seq} --micro-batch-size {shape.batch} --train-iters 100000 --lr 1e-4 --eval-iters 0
        --data-path none --vocab-file none --merge-file none"""
    argv = [*line.split(), *(["--bf16"] if dtype == "bf16" else []), *more]
    args = build_parser(shape.model).parse_args(argv)
    args.model, args.world_size, args.rank = shape.model, 1, 0
    args.merge_file = None if shape.model == "bert" else args.merge_file
    validate(args)
    args.tokenizer = SimpleNamespace(vocab_size=shape.vocab)
    return args


def batches(args: Namespace) -> list[dict[str, Tensor]]:
    """Random micro-batches with the token frequencies of text."""
    seeds = range(args.seed, args.seed + BATCHES)
    draw = family(args.model).model().random_batch
    return [draw(Namespace(**{**vars(args), "seed": seed}), args.tokenizer.vocab_size) for seed in seeds]


def ours(shape: Shape, dtype: str, scheme: str, *flags: str) -> Step:
    """A step as pretrain_bert.py and pretrain_gpt.py take it."""
    from megatron.dslm.models.build import build_chunks

    args = arguments(shape, dtype, "--depth-scheme", scheme, *flags)
    model = family(shape.model).model()
    return _megatron_step(args, lambda: build_chunks(args, model.provide_model)[0], model.forward_step)


def plain(shape: Shape, dtype: str) -> Step:
    """The same step over megatron-core's own model: its layers, its head on all positions, its initialisation."""
    from megatron.core.models.bert.bert_model import BertModel
    from megatron.core.models.gpt import GPTModel

    from dslm_patches.mcore import layer_spec
    from megatron.dslm.models.mcore_config import transformer_config, transformer_impl

    args = arguments(shape, dtype, "--no-cpu-kernels")

    def build() -> list[Any]:
        config = transformer_config(args)
        config.init_method = config.output_layer_init_method = partial(torch.nn.init.normal_, std=0.02)
        config.embedding_init_method = config.init_method
        common = {"vocab_size": padded_vocab_size(args), "max_sequence_length": args.seq_length}
        common["share_embeddings_and_output_weights"] = True
        spec = layer_spec(shape.model, transformer_impl(args), "pre")  # megatron-core's own
        if shape.model == "gpt":
            model = GPTModel(config, spec, **common, position_embedding_type="learned_absolute")
        else:
            model = BertModel(config, 2, spec, **common)
        return [model.to(torch.cuda.current_device())]

    return _megatron_step(args, build, family(shape.model).model().forward_step)


def _megatron_step(args: Namespace, build: Callable[[], list[Any]], forward_step: Callable[..., Any]) -> Step:
    from megatron.dslm.distributed.initialize import initialize
    from megatron.dslm.models.build import wrap_chunks
    from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
    from megatron.dslm.training.step import Trainer

    initialize(args)
    chunks = wrap_chunks(args, build())
    optimizer = build_optimizer(args, chunks)
    trainer = Trainer(args, chunks, forward_step, optimizer, build_scheduler(args, optimizer))
    data = [cycle(batches(args))]

    def step() -> None:
        losses, _ = trainer.step(data)
        assert all(map(math.isfinite, losses.values()))

    return step


def hugging_face(shape: Shape, dtype: str, mode: str) -> Step:
    """transformers' model with SDPA attention, clipping and torch's fused AdamW.

    Args:
        mode: "fp32"; "autocast", weights in fp32; or "bf16", weights and optimizer in bf16.
    """
    from transformers import BertConfig, BertForPreTraining, GPT2Config, GPT2LMHeadModel

    args = arguments(shape, "fp32")
    vocab, width = padded_vocab_size(args), shape.hidden
    common: dict[str, Any] = {"vocab_size": vocab, "attn_implementation": "sdpa"}
    if shape.model == "gpt":
        sizes = {"n_embd": width, "n_layer": shape.layers, "n_head": width // 64, "n_positions": shape.seq}
        model: Any = GPT2LMHeadModel(GPT2Config(**sizes, **common))
    else:
        sizes = {"hidden_size": width, "num_hidden_layers": shape.layers, "num_attention_heads": width // 64}
        model = BertForPreTraining(BertConfig(**sizes, intermediate_size=4 * width, **common))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.train().to(device, torch.bfloat16 if mode == "bf16" else torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    data = cycle([_for_hugging_face(batch, device) for batch in batches(args)])

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=mode == "autocast"):
            loss = model(**next(data)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert math.isfinite(loss.item())

    return step


def _for_hugging_face(batch: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    batch = {name: one.to(device) for name, one in batch.items()}
    if "tokens" in batch:
        return {"input_ids": batch["tokens"], "labels": batch["tokens"]}
    return {
        "input_ids": batch["text"],
        "token_type_ids": batch["types"],
        "attention_mask": batch["padding_mask"],
        "labels": torch.where(batch["loss_mask"].bool(), batch["labels"], -100),
        "next_sentence_label": batch["is_random"],
    }


CONTENDERS: dict[str, Callable[[Shape, str], Step]] = {
    "dslm": partial(ours, scheme="dslm"),
    "megatron": partial(ours, scheme="megatron"),
    "plain": plain,
    "local": lambda shape, dtype: ours(shape, dtype, "dslm", "--transformer-impl", "local"),
    "hf": partial(hugging_face, mode="fp32"),
    "hf-autocast": partial(hugging_face, mode="autocast"),
    "hf-bf16": partial(hugging_face, mode="bf16"),
}
