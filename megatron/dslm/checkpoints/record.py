"""What a checkpoint records of the run that wrote it, and whether another run can go on from there.

Read without torch, so that a wrong folder is refused before anything heavy is imported.
"""

import json
import os
from argparse import Namespace
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.checkpoints.manifest import write_synced

ARGUMENTS = "arguments.json"
ARCHITECTURE = (
    "model",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "ffn_hidden_size",
    "kv_channels",
    "num_query_groups",
    "max_position_embeddings",
    "position_embedding_type",
    "rotary_percent",
    "rotary_base",
    "activation",
    "normalization",
    "norm_epsilon",
    "disable_bias_linear",
    "untie_embeddings_and_output_weights",
    "make_vocab_size_divisible_by",
    "bert_no_binary_head",
)
"""Flags that make a model's function and its tensors."""
SCHEME = (
    "depth_scheme",
    "norm_placement",
    "dslm_k",
    "dslm_alpha",
    "dslm_lambda_sq",
    "dslm_beta_sq",
    "dslm_input_correlation",
    "init_method_std",
    "seq_length",
    "hidden_dropout",
    "attention_dropout",
)
"""Flags that make its depth scheme: lengths and dropout go into the weights' standard deviations and the head scale."""
SCHEDULE = ("lr", "min_lr", "lr_decay_style", "lr_decay_iters", "lr_warmup_iters", "weight_decay")
"""Flags that a resumed run follows as it began, unless --override-opt-param-scheduler says otherwise."""
DATA_ORDER = ("global_batch_size", "seed")
"""Flags that say which sample is next."""
OPTIMIZER = ("optimizer", "use_distributed_optimizer", "bf16")
"""Flags that make the optimizer's state, which any layout can load, but no other optimizer."""
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size")


def recorded_arguments(args: Namespace, iteration: int) -> dict[str, Any]:
    """Plain values that tell a later run, or a converter, what this one was."""
    names = ARCHITECTURE + SCHEME + SCHEDULE + DATA_ORDER + OPTIMIZER + LAYOUT
    return {name: getattr(args, name, None) for name in names} | {
        "iteration": iteration,
        "task": getattr(args, "task", None),
        "training_samples": getattr(args, "training_samples", None),
        "vocab_size": args.tokenizer.vocab_size,
        "tokenizer_type": args.tokenizer.tokenizer_type,
        "tokenizer_sha256": args.tokenizer.unique_identifiers["content_sha256"],
    }


def write_arguments(folder: str, args: Namespace, iteration: int) -> None:
    """Writes `recorded_arguments` into a checkpoint folder."""
    write_synced(os.path.join(folder, ARGUMENTS), json.dumps(recorded_arguments(args, iteration), indent=1) + "\n")


def read_arguments(folder: str, flag: str = "--load") -> dict[str, Any]:
    """What a checkpoint folder records of the run that wrote it.

    Raises:
        UserError: it records nothing, or not all of it.
    """
    path = os.path.join(folder, ARGUMENTS)
    try:
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
        if not isinstance(saved, dict):
            raise UserError("not an object")
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: {path} cannot be read: {error}") from None
    missing = [name for name in (*ARCHITECTURE, *SCHEME, "vocab_size", "iteration") if name not in saved]
    if missing:
        raise UserError(f"{flag}: {path} does not say {', '.join(missing)}")
    return saved


def check_architecture(args: Namespace, saved: dict[str, Any], folder: str) -> None:
    """Refuses a checkpoint of another model than the arguments describe.

    Raises:
        UserError: the flags that differ are named, with the saved values.
    """
    now = recorded_arguments(args, 0)
    # Only DeepScaleLM's head scale follows from the dropout.
    scheme = SCHEME if args.depth_scheme == "dslm" else SCHEME[: SCHEME.index("hidden_dropout")]
    different = [
        f"--{name.replace('_', '-')} {now[name]} (saved: {saved.get(name)})"
        for name in (*ARCHITECTURE, *scheme, "vocab_size", "task")
        if saved.get(name) != now[name]
    ]
    if different:
        raise UserError(f"--load: {folder} was saved from another model: {'; '.join(different)}")


def check_continuation(args: Namespace, saved: dict[str, Any], folder: str) -> None:
    """Refuses to go on with another schedule, data order or vocabulary than the run began with.

    Raises:
        UserError: the flag is named, with the saved value and what to do.
    """
    now = recorded_arguments(args, 0)
    for name in (*DATA_ORDER, *OPTIMIZER, *(() if args.override_opt_param_scheduler else SCHEDULE)):
        if saved.get(name) not in (None, now[name]):
            way_out = ", or --override-opt-param-scheduler to change course" if name in SCHEDULE else ""
            given = f"--{name.replace('_', '-')} {now[name]}"
            raise UserError(f"{given}: the run in {folder} began with {saved[name]}; give that{way_out}")
    if saved.get("tokenizer_sha256") not in (None, now["tokenizer_sha256"]):
        raise UserError(f"--vocab-file {args.vocab_file} is not the vocabulary that the run in {folder} began with")
    if saved.get("training_samples") not in (None, now["training_samples"]):
        raise UserError(
            f"--train-data holds {now['training_samples']} samples: the run in {folder} began with "
            f"{saved['training_samples']}"
        )
