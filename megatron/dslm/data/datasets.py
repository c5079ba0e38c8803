"""megatron-core's datasets for training, validation and test."""

import os
from argparse import Namespace
from typing import Any

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.utils import get_blend_from_list

from dslm_patches.errors import UserError
from megatron.dslm.data import safe_indices


def common_dataset_arguments(args: Namespace) -> dict[str, Any]:
    """What the configurations of all of megatron-core's datasets share."""
    per_split = None
    if args.data_path is None:
        paths = (args.train_data_path, args.valid_data_path, args.test_data_path)
        per_split = [get_blend_from_list(path) for path in paths]
    first = (args.data_path or args.train_data_path)[-1]
    cache = args.data_cache_path or os.path.join(os.path.dirname(os.path.abspath(first)), "cache")
    return {
        "random_seed": args.seed,
        "sequence_length": args.seq_length,
        "blend": get_blend_from_list(args.data_path),
        "blend_per_split": per_split,
        "split": args.split,
        "path_to_cache": cache,
        "tokenizer": args.tokenizer,
    }


def build_datasets(args: Namespace, dataset: tuple[type, Any]) -> list[Any]:
    """Train, validation and test sets; None where a split has no share or no evaluation is asked for.

    Each evaluation uses the same samples, so that its losses can be compared over the run.

    Raises:
        UserError: a split too small to hold one sample; --split or the path flag is named.
    """
    safe_indices.install()
    evaluated = args.eval_iters * args.global_batch_size
    sizes = [args.train_iters * args.global_batch_size, evaluated, evaluated]
    dataset_class, config = dataset
    sets = BlendedMegatronDatasetBuilder(dataset_class, sizes, lambda: True, config).build()
    flag = "--split" if args.data_path is not None else "--valid-data-path"
    if sets[0] is None or len(sets[0]) < args.global_batch_size:
        raise UserError("--data-path: too few documents in the training split for one global batch")
    if args.eval_iters and (sets[1] is None or len(sets[1]) < args.global_batch_size):
        raise UserError(f"{flag}: too few documents for one global batch of validation; give it a larger share")
    return list(sets)
