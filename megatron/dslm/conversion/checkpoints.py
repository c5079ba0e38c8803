"""Checkpoints to Hugging Face folders and back, in one process, whatever the layout they were saved in."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.hf_folder import read_config, require_new, weight_files
from megatron.dslm.arguments.layout import resolve_layout
from megatron.dslm.arguments.parse import build_parser
from megatron.dslm.arguments.validate import validate_model
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.manifest import check_digests, read_manifest
from megatron.dslm.checkpoints.saved_arguments import read_arguments
from megatron.dslm.conversion.classes import PARTS, check_class, default_class, labels
from megatron.dslm.conversion.tokenizers import checked_tokenizer, folder_tokenizer, special_ids, tokenizer_files
from megatron.dslm.distributed.libraries import prepare_libraries
from megatron.dslm.huggingface.fields import config_fields, hf_arguments, vocabulary_multiple
from megatron.dslm.huggingface.weights import load_hf_weights
from megatron.dslm.models.family import family
from megatron.dslm.tasks import TASKS


def to_huggingface(
    load: str, save: str, *, vocab_file: str | None, merge_file: str | None, model_class: str | None
) -> str:
    """Writes the checkpoint of `load` as a folder for transformers; a line that tells what was written.

    Args:
        vocab_file, merge_file: the tokenizer of the run, to go into the folder.
        model_class: of the family's classes; by default the one that has all the heads of the checkpoint.

    Raises:
        UserError: no checkpoint, another tokenizer, a class that does not go with the model; the flag is named.
    """
    require_new(save)
    folder = find_checkpoint(load)
    if folder is None:
        raise UserError(f"--load {load} holds no checkpoint")
    problem = check_digests(folder, read_manifest(folder))
    if problem is not None:
        raise UserError(f"--load: {folder}: {problem}")
    saved = read_arguments(folder)
    tokenizer = checked_tokenizer(saved, vocab_file, merge_file)
    chosen = model_class or default_class(saved)
    check_class(chosen, saved)
    args = model_arguments(saved, SimpleNamespace(vocab_size=saved["vocab_size"]))

    prepare_libraries()
    import dslm_patches.hf
    from dslm_patches.hf.convert import to_hf
    from dslm_patches.hf.export import export_model
    from dslm_patches.hf.tensor_names import correspondences
    from dslm_patches.mcore.shards import layout_free_name
    from megatron.dslm.checkpoints.load import load_weights

    own = family(saved["model"])
    build_config = getattr(dslm_patches.hf, f"Dslm{own.hf_name}Config")
    config = build_config(**config_fields(saved), **special_ids(tokenizer), **labels(saved))
    with _built(args, initialize=False) as chunks:
        missing = load_weights(chunks, folder)
        if missing:
            raise UserError(f"--load: {folder} does not hold {missing[0]}")
        state = {layout_free_name(chunks[0], name): one.detach() for name, one in chunks[0].named_parameters()}
    parts = {one.megatron: one.part for one in correspondences(config)}
    kept = {name: one for name, one in state.items() if parts.get(name, "body") in {"body", *PARTS[chosen]}}
    left_out = {parts[name] for name in state.keys() - kept.keys()}
    name = f"Dslm{own.hf_name}{chosen}"
    export_model(
        to_hf(kept, config),
        config,
        save,
        model_class=name,
        tokenizer=None if tokenizer is None else tokenizer_files(tokenizer, vocab_file, merge_file),
        facts=_facts(saved),
    )
    return f"wrote {save}: {name}, {_described(saved, kept)}{_listed('left out', left_out)}"


def to_megatron(load: str, save: str) -> str:
    """Writes the model of a Dslm or stock BERT folder as a checkpoint of weights; a line that tells what was written.

    Heads that the folder does not hold are drawn by its depth scheme.

    Raises:
        UserError: no such folder, pickled weights, a model that Megatron's flags cannot describe.
    """
    saved = hf_arguments(load)
    weight_files(load)  # before the seconds that it takes to build a model
    if find_checkpoint(save, "--save") is not None:
        raise UserError(f"--save {save} holds a checkpoint already: remove it, or give another folder")
    args = model_arguments(saved, folder_tokenizer(load, saved))
    args.save = save

    prepare_libraries()
    from dslm_patches.hf.reader import FolderReader
    from dslm_patches.hf.tensor_names import correspondences
    from dslm_patches.mcore.shards import layout_free_name
    from megatron.dslm.checkpoints.save import save_weights

    with _built(args, initialize=True) as chunks:
        new = load_hf_weights(chunks, load, strict=False)
        folder = save_weights(args, saved["iteration"], chunks)
        state = {layout_free_name(chunks[0], name): one for name, one in chunks[0].named_parameters()}
    with FolderReader(load) as reader:
        unused = {one.part for one in reader.correspondences(strict=False) if one.megatron not in state}
        parts = {one.megatron: one.part for one in correspondences(reader.config)}
    line = f"wrote {folder}: from {read_config(load)['model_type']}, {_described(saved, state)}"
    return line + _listed("drawn anew", {parts[name] for name in new}) + _listed("left out", unused)


def _listed(what: str, parts: set[str]) -> str:
    return f"; {what}: {', '.join(sorted(parts))}" if parts else ""


def model_arguments(saved: dict[str, Any], tokenizer: Any) -> Namespace:
    """The trainer's arguments for building the model of recorded arguments on one rank."""
    needed = "--num-layers 1 --hidden-size 1 --num-attention-heads 1 --seq-length 1 --micro-batch-size 1 --lr 1"
    args = build_parser(saved["model"]).parse_args([*needed.split(), *["--train-iters", "1", "--vocab-file", "-"]])
    layout = {name for name in saved if name.endswith("_parallel_size")}
    vars(args).update({name: value for name, value in saved.items() if name not in layout})
    args.make_vocab_size_divisible_by = vocabulary_multiple(saved)
    args.group_query_attention = args.num_query_groups != args.num_attention_heads
    args.rank, args.world_size, args.tokenizer = 0, 1, tokenizer
    validate_model(args)
    resolve_layout(args)
    return args


@contextmanager
def _built(args: Namespace, *, initialize: bool) -> Iterator[list[Any]]:
    """The model of the arguments on process groups of one rank, for a while."""
    from megatron.core.num_microbatches_calculator import destroy_num_microbatches_calculator

    from megatron.dslm.distributed.initialize import initialize as bring_up
    from megatron.dslm.distributed.initialize import shut_down

    bring_up(args)
    try:
        from megatron.dslm.models.build import build_chunks

        chunks = build_chunks(args, _provider(args), initialize=initialize)[0]
        # As the trainer's wrapper does: norms are built in fp32.
        yield [chunk.to(chunk.config.params_dtype) for chunk in chunks]
    finally:
        destroy_num_microbatches_calculator()
        shut_down()


def _provider(args: Namespace) -> Any:
    task = getattr(args, "task", None)
    if task is None:
        return family(args.model).model().provide_model
    from megatron.dslm.models.bert_classifier.model import model_provider

    return model_provider(TASKS[task])


def _facts(saved: dict[str, Any]) -> dict[str, str]:
    task = saved.get("task")
    return {
        "objective": family(saved["model"]).objective(saved) if task is None else f"fine-tuned for {task}",
        "iterations": f"{saved['iteration']:,}",
        "sequence length": str(saved["seq_length"]),
        "dropout": f"{saved['hidden_dropout']} hidden, {saved['attention_dropout']} attention",
        "tokenizer": str(saved.get("tokenizer_type")),
    }


def _described(saved: dict[str, Any], tensors: Mapping[str, Any]) -> str:
    millions = sum(one.numel() for one in tensors.values()) / 1e6
    size = f"{saved['num_layers']} layers x {saved['hidden_size']}"
    return (
        f"{family(saved['model']).title}, {size}, {saved['depth_scheme']} "
        f"{saved['norm_placement']}-LN, iteration {saved['iteration']:,}, {len(tensors)} tensors, "
        f"{millions:.2f} M parameters"
    )
