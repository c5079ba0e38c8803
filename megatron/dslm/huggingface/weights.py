"""The weights of a Hugging Face folder for model chunks of any layout."""

from typing import Any

from dslm_patches.errors import UserError


def load_hf_weights(
    chunks: list[Any], folder: str, *, strict: bool = True, flag: str = "--load", leave: str | None = None
) -> list[str]:
    """Fills model chunks of any layout, on all ranks, from a Dslm or stock BERT folder; other parameters stay.

    Rows that only pad this model's vocabulary become 0.

    Args:
        strict: every parameter must be in the folder, and every tensor of the folder have its place.
        leave: parameters whose names begin so stay too.

    Returns:
        The layout-free names of the parameters, of all ranks, that the folder has nothing for: new heads.

    Raises:
        UserError: a tensor of another shape or, if strict, without its match, by its name. On all ranks alike.
    """
    import torch
    from megatron.core.utils import unwrap_model

    from dslm_patches.hf.convert import join
    from dslm_patches.hf.reader import FolderReader
    from dslm_patches.mcore.shards import is_gated, layout_free_name
    from megatron.dslm.distributed.ranks import from_all_ranks

    with FolderReader(folder, flag) as reader, torch.no_grad():
        places = {
            one.megatron: one
            for one in reader.correspondences(strict=strict)
            if leave is None or not one.megatron.startswith(leave)
        }
        seen: set[str] = set()
        problem: str | None = None
        for chunk in map(unwrap_model, chunks):
            for name, parameter in chunk.named_parameters():
                place = layout_free_name(chunk, name)
                seen.add(place)
                if place not in places:
                    continue
                try:
                    whole = join(places[place], reader.tensor, reader.config)
                    _fill(parameter, place, whole, reader.config, gated=is_gated(chunk, name))
                except ValueError as error:
                    problem = problem or str(error)
    everywhere = from_all_ranks((seen, problem))
    problem = next((one for _, one in everywhere if one), None)
    seen = set().union(*(names for names, _ in everywhere))
    if problem is None and strict and seen != set(places):
        name = sorted(seen ^ set(places))[0]
        problem = f"{name} is missing from the folder" if name in seen else f"the model has no place for {name}"
    if problem is not None:
        raise UserError(f"{flag} {folder}: {problem}")
    return sorted(seen - set(places))


def _fill(parameter: Any, name: str, whole: Any, config: Any, *, gated: bool) -> None:
    """Copies this rank's shard of a whole weight."""
    import torch.nn.functional as F

    from dslm_patches.mcore.shards import WORD_EMBEDDINGS, own_shard, whole_shape

    shape = whole_shape(parameter)
    of_vocabulary = name in (WORD_EMBEDDINGS, "output_layer.weight", "output_layer.bias")
    if of_vocabulary and shape[0] >= (config.tokenizer_vocab_size or config.vocab_size):
        whole = F.pad(whole, (0,) * (2 * whole.dim() - 1) + (max(0, shape[0] - whole.size(0)),))[: shape[0]]
    if whole.shape != shape:
        raise UserError(f"{name} is {list(whole.shape)} in the folder, and the model wants {list(shape)}")
    parameter.copy_(own_shard(whole, parameter, gated=gated))
