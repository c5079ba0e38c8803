"""Save, load and resume through megatron-core's distributed checkpoints, in Megatron-LM's folder layout."""

import os
import shutil
from argparse import Namespace
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.utils import unwrap_model

from megatron.dslm.training.step import Trainer

_TRACKER = "latest_checkpointed_iteration.txt"
_ARCHITECTURE = [
    "model",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "ffn_hidden_size",
    "kv_channels",
    "num_query_groups",
    "max_position_embeddings",
    "position_embedding_type",
    "activation",
    "normalization",
    "disable_bias_linear",
    "untie_embeddings_and_output_weights",
    "depth_scheme",
    "norm_placement",
    "seq_length",
]
_LAYOUT = ["tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size"]
# Any layout can load the optimizer state, at the price of gathering it on save.
_METADATA = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": False,
    "singleton_local_shards": False,
    "chained_optim_avoid_prefix": True,
}


def find_checkpoint(load: str) -> str | None:
    """The folder of the latest checkpoint in `load`, or None if there is none.

    Raises:
        ValueError: the folder says that it holds one and does not.
    """
    tracker = os.path.join(load, _TRACKER)
    if not os.path.isfile(tracker):
        return None
    with open(tracker, encoding="utf-8") as file:
        text = file.read().strip()
    if not text.isdigit():
        raise ValueError(f"--load: {tracker} holds {text[:40]!r}, not an iteration")
    folder = _folder(load, int(text))
    if not os.path.isfile(os.path.join(folder, "metadata.json")):
        raise ValueError(f"--load: {tracker} names iteration {text}, and {folder} holds no checkpoint")
    return folder


def save_checkpoint(args: Namespace, iteration: int, trainer: Trainer) -> str:
    """Saves everything needed to go on, in any layout; the folder. Call it on all ranks.

    Written aside and renamed when complete, so that a run that is killed meanwhile leaves the last one valid.
    """
    folder = _folder(args.save, iteration)
    aside = folder + ".incomplete"
    if args.rank == 0:
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(aside)
    torch.distributed.barrier()
    state = _sharded_state(trainer, is_loading=False)
    state |= {
        "iteration": iteration,
        "arguments": _recorded(args),
        "rng_state": _sharded_rng_state(),
        "opt_param_scheduler": trainer.scheduler.state_dict(),
    }
    dist_checkpointing.save(state, aside, content_metadata=dict(_METADATA))
    torch.distributed.barrier()
    if args.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
        tracker = os.path.join(args.save, _TRACKER)
        with open(tracker + ".incomplete", "w", encoding="utf-8") as file:
            file.write(str(iteration))
        os.replace(tracker + ".incomplete", tracker)
    torch.distributed.barrier()
    return folder


def load_checkpoint(args: Namespace, folder: str, trainer: Trainer) -> int:
    """Fills model, optimizer, schedule and RNG from a checkpoint of any layout; its iteration. All ranks call it.

    The RNG states of dropout belong to ranks: they are restored when the layout is the saved one, and
    otherwise stay as seeded.

    Raises:
        ValueError: a checkpoint of another architecture or scheme; the flags that differ are named.
    """
    saved = dist_checkpointing.load_common_state_dict(folder)["arguments"]
    _check_architecture(args, saved, folder)
    state = _sharded_state(trainer, is_loading=True)
    same_layout = all(saved[name] == getattr(args, name) for name in _LAYOUT)
    if same_layout:
        state["rng_state"] = _sharded_rng_state()
    loaded = dist_checkpointing.load(state, folder)
    for name, chunk in _named_chunks(trainer):
        chunk.load_state_dict(loaded[name])
    trainer.optimizer.load_state_dict(loaded["optimizer"])
    trainer.scheduler.load_state_dict(loaded["opt_param_scheduler"])
    if same_layout:
        _set_rng_state(loaded["rng_state"])
    return int(loaded["iteration"])


def _folder(root: str, iteration: int) -> str:
    return os.path.join(root, f"iter_{iteration:07d}")


def _recorded(args: Namespace) -> dict[str, Any]:
    """Plain values that tell a later run what this one was."""
    return {name: getattr(args, name) for name in _ARCHITECTURE + _LAYOUT} | {
        "residual": _residual(args),
        "vocab_size": args.tokenizer.vocab_size,
    }


def _residual(args: Namespace) -> str:
    options = args.scheme_options
    return f"k {options.k:g} alpha {options.alpha:g} lambda^2 {options.lambda_sq} beta^2 {options.beta_sq}"


def _check_architecture(args: Namespace, saved: dict[str, Any], folder: str) -> None:
    now = _recorded(args)
    different = [
        f"--{name.replace('_', '-')} {now[name]} (saved: {saved.get(name)})"
        for name in now
        if name not in _LAYOUT and saved.get(name) != now[name]
    ]
    if different:
        raise ValueError(f"--load: {folder} was saved from another model: {'; '.join(different)}")


def _named_chunks(trainer: Trainer) -> list[tuple[str, Any]]:
    if len(trainer.chunks) == 1:
        return [("model", unwrap_model(trainer.chunks[0]))]
    return [(f"model{index}", unwrap_model(chunk)) for index, chunk in enumerate(trainer.chunks)]


def _sharded_state(trainer: Trainer, *, is_loading: bool) -> dict[str, Any]:
    # A copy: megatron-core adds its process groups to it.
    metadata = dict(_METADATA)
    state: dict[str, Any] = {
        name: chunk.sharded_state_dict(metadata=metadata) for name, chunk in _named_chunks(trainer)
    }
    models = dict(state)
    state["optimizer"] = trainer.optimizer.sharded_state_dict(models, is_loading=is_loading, metadata=metadata)
    return state


def _sharded_rng_state() -> ShardedObject:
    state = {"cpu": torch.get_rng_state(), "tracker": tensor_parallel.get_cuda_rng_tracker().get_states()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    ranks = (
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(),
    )
    sizes = (
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(),
    )
    return ShardedObject("rng_state", state, sizes, ranks, replica_id=0)


def _set_rng_state(state: dict[str, Any]) -> None:
    tensor_parallel.get_cuda_rng_tracker().set_states(state["tracker"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    torch.set_rng_state(state["cpu"])
