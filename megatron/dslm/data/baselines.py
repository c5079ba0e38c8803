"""The n-gram losses of a run's own data, counted once and kept beside its sample indices."""

import contextlib
import hashlib
import json
import math
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megatron.core.datasets.utils import Split

from dslm_patches.files import write_aside
from megatron.dslm.data.content import split_blend
from megatron.dslm.data.datasets import Part, parts_of
from megatron.dslm.data.ngrams import (
    LARGEST_VOCABULARY,
    MOST_TOKENS,
    PRIOR,
    Share,
    bigram_cross_entropy,
    evenly_spread,
    unigram_cross_entropy,
)

_VERSION = 1


@dataclass(frozen=True)
class Baselines:
    """Cross entropies of the validation split, in nats a token, by counts of the training split.

    Attributes:
        unigrams: by each token's frequency; a loss above it, of GPT or masked LM, uses no context at all.
        bigrams: by the token before; None for masked LM, which sees both sides, and for large vocabularies.
        train_tokens: that were counted.
    """

    unigrams: float
    bigrams: float | None
    train_tokens: int

    def summary(self) -> str:
        """A line for the summary."""
        pairs = "" if self.bigrams is None else f", bigrams {self.bigrams:.3f}"
        return f"unigrams {self.unigrams:.3f}{pairs} nats a validation token, by {self.train_tokens:,} training tokens"

    def values(self) -> dict[str, float]:
        """By name, those that there are."""
        return {"unigrams": self.unigrams} | ({} if self.bigrams is None else {"bigrams": self.bigrams})


def baselines(args: Namespace, dataset: tuple[type, Any], *, causal: bool) -> Baselines | None:
    """Counts, or reads what was counted before; None without a validation split. For one rank.

    Args:
        dataset: class and configuration of the samples, as for `build_datasets`.
        causal: the model sees what is before a token alone, so that pairs of tokens are a measure of it.
    """
    parts = {split: [part for part in parts_of(args, *dataset) if part.split is split] for split in Split}
    train, valid = parts[Split.train], parts[Split.valid]
    if not valid:
        return None
    pairs = causal and args.tokenizer.vocab_size <= LARGEST_VOCABULARY
    path = _path(args, train, valid, pairs, dataset[1].path_to_cache)
    known = _read(path)
    if known is not None:
        return known
    counted, asked = _shares(args, train), _shares(args, valid)
    size = args.tokenizer.vocab_size
    found = Baselines(
        unigram_cross_entropy(counted, asked, size),
        bigram_cross_entropy(counted, asked, size) if pairs else None,
        sum(len(one.tokens) for one in counted),
    )
    with contextlib.suppress(OSError):  # a cache that is only read: they are counted again, in seconds
        write_aside(path, json.dumps(asdict(found)), unique=True)
    return found


def _shares(args: Namespace, parts: Sequence[Part]) -> list[Share]:
    given = split_blend(getattr(args, parts[0].name))[1]
    weights = [float(len(part.tokens)) for part in parts] if given is None else given
    return [
        Share(evenly_spread(part.tokens, int(MOST_TOKENS * weight / sum(weights))), weight)
        for part, weight in zip(parts, weights, strict=True)
    ]


def _path(args: Namespace, train: Sequence[Part], valid: Sequence[Part], pairs: bool, cache: str) -> str:
    """Named after all that the figures follow from."""
    of = [[[part.content, part.edges] for part in parts] for parts in (train, valid)]
    weights = [split_blend(getattr(args, parts[0].name))[1] for parts in (train, valid)]
    key = json.dumps([_VERSION, MOST_TOKENS, PRIOR, pairs, args.tokenizer.vocab_size, of, weights])
    return os.path.join(cache, f"baselines-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json")


def _read(path: str) -> Baselines | None:
    """What was counted before; None where nothing, or nothing that holds together, is there."""
    try:
        with open(path, encoding="utf-8") as file:
            found = Baselines(**json.load(file))
        values = [*found.values().values(), float(found.train_tokens)]
        return found if all(math.isfinite(value) and value > 0 for value in values) else None
    except (OSError, ValueError, TypeError):
        return None
