"""Models on their way to Hugging Face and back, inside the pool's ranks."""

import hashlib
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dslm_patches.mcore.shards import layout_free_name
from megatron.dslm.arguments import parse_args
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.load import load_weights
from megatron.dslm.checkpoints.save import save_weights
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from megatron.dslm.conversion import to_huggingface, to_megatron
from megatron.dslm.conversion.checkpoints import _built, model_arguments
from megatron.dslm.distributed.initialize import initialize_model_parallel
from megatron.dslm.huggingface.fields import hf_arguments
from megatron.dslm.huggingface.weights import load_hf_weights
from megatron.dslm.models.bert_classifier.model import model_provider
from megatron.dslm.models.build import build_chunks
from megatron.dslm.models.family import family
from megatron.dslm.tasks import TASKS

Inputs = tuple[Tensor, Tensor, Tensor]
"""Ids, mask and token types, [b, s]."""


def build(argv: list[str], model: str, task: str | None = None) -> tuple[Any, list[Any]]:
    """Arguments and this rank's model chunks, as initialised, on running torch.distributed."""
    args = parse_args(model, argv)
    args.task = task
    initialize_model_parallel(args)
    module = family(model).model()
    provider = module.provide_model if task is None else model_provider(TASKS[task])
    return args, build_chunks(args, provider)[0]


@torch.no_grad()
def save_perturbed(argv: list[str], model: str, save: str, task: str | None = None) -> None:
    """Saves an initialised model with noise on all norms and biases, as training would have it."""
    args, chunks = build(argv, model, task)
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if parameter.dim() == 1:
                # Replicated parameters get the same noise on all ranks, shards their own.
                rank = torch.distributed.get_rank() if getattr(parameter, "tensor_model_parallel", False) else 0
                digest = hashlib.sha256(f"{rank} {layout_free_name(chunk, name)}".encode()).digest()
                generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    args.save = save
    save_weights(args, 7, chunks)


def logits(checkpoint: str, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Logits [b, s, v], and [b, 2] of a BERT's binary head, of a checkpoint on one rank; [b, outputs] of a task's."""
    ids, mask, types = inputs
    saved = read_arguments(_folder(checkpoint))
    args = model_arguments(saved, _tokenizer(saved))
    with _built(args, initialize=False) as chunks, torch.no_grad():
        load_weights(chunks, _folder(checkpoint))
        model = chunks[0].eval()
        if saved["task"] is not None:
            return model(ids, mask, None if saved["bert_no_binary_head"] else types), None
        if saved["model"] == "bert":
            return model(ids, mask, tokentype_ids=None if saved["bert_no_binary_head"] else types)
        positions = torch.arange(ids.size(1)).expand_as(ids)
        return model(ids, positions, None), None


def export(checkpoint: str, folder: str, files: dict[str, str | None], model_class: str | None = None) -> str:
    return to_huggingface(checkpoint, folder, **files, model_class=model_class)  # type: ignore[arg-type]


def round_trip(checkpoint: str, folder: str, back: str) -> tuple[str, list[str]]:
    """The line of the way back, and the names of parameters that are not what they were, bit for bit."""
    line = to_megatron(folder, back)
    return line, _different(_weights(checkpoint), _weights(back))


def converted_back(folder: str, back: str) -> tuple[str, dict[str, Any]]:
    """The line of the way back, and what the checkpoint records."""
    return to_megatron(folder, back), read_arguments(_folder(back))


def load_sharded(argv: list[str], model: str, checkpoint: str, folder: str) -> list[str]:
    """Parameters of this rank that a Hugging Face folder fills otherwise than the checkpoint does."""
    _, chunks = build(argv, model)
    load_weights(chunks, _folder(checkpoint))
    expected = {name: one.detach().clone() for chunk in chunks for name, one in chunk.named_parameters()}
    for chunk in chunks:
        for parameter in chunk.parameters():
            parameter.data.fill_(-1.0)
    assert load_hf_weights(chunks, folder) == []
    return _different(expected, {name: one for chunk in chunks for name, one in chunk.named_parameters()})


def load_result(argv: list[str], folder: str, strict: bool) -> list[str] | str:
    """What loading a Hugging Face folder into this rank's chunks returns, or its error."""
    _, chunks = build(argv, "bert")
    try:
        return load_hf_weights(chunks, folder, strict=strict)
    except ValueError as error:
        return str(error)


def imported_logits(folder: str, inputs: Inputs) -> tuple[Tensor, list[str]]:
    """Logits [b, s, v] of a stock BERT folder in megatron-core's BERT, and the parameters it had nothing for."""
    ids, mask, types = inputs
    saved = hf_arguments(folder)
    with _built(model_arguments(saved, _tokenizer(saved)), initialize=True) as chunks, torch.no_grad():
        new = load_hf_weights(chunks, folder, strict=False)
        return chunks[0].eval()(ids, mask, tokentype_ids=types)[0], new


def weight_moments(argv: list[str], model: str) -> dict[str, tuple[float, int]]:
    """Mean square and count of every 2-D weight of the initialised model, by its layout-free name."""
    _, chunks = build(argv, model)
    weights = {layout_free_name(chunks[0], name): one for name, one in chunks[0].named_parameters() if one.dim() == 2}
    return {name: (one.double().square().mean().item(), one.numel()) for name, one in weights.items()}


def _weights(checkpoint: str) -> dict[str, Tensor]:
    saved = read_arguments(_folder(checkpoint))
    with _built(model_arguments(saved, _tokenizer(saved)), initialize=False) as chunks:
        load_weights(chunks, _folder(checkpoint))
        return {name: one.detach().clone() for name, one in chunks[0].named_parameters()}


def _different(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def _folder(checkpoint: str) -> str:
    folder = find_checkpoint(checkpoint)
    assert folder is not None
    return folder


def _tokenizer(saved: dict[str, Any]) -> Any:
    return SimpleNamespace(vocab_size=saved["vocab_size"])
