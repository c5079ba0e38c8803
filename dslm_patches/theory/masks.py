"""Who sees whom: sums over keys and queries under a bidirectional or causal mask.

With a bidirectional mask all positions are alike and every sum is a number times a count. With a causal mask query
i sees keys 1..i, and the sums are cumulative sums over positions. Arrays [L, L] stand for pairs of different
positions; their diagonal is not read.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dslm_patches.theory.moments import Array, Moments, Value


class Mask(Protocol):
    """Sums that attention's moments are made of."""

    @property
    def keys(self) -> Value:
        """Number of keys each query sees."""

    @property
    def common_keys(self) -> Value:
        """Number of keys that both queries of a pair see."""

    def fewer(self, each: Value) -> Value:
        """For each pair of queries: a value per query, taken at the one that sees fewer keys."""

    def more(self, each: Value) -> Value:
        """The same, taken at the one that sees more keys."""

    def positions(self, x: Moments) -> Moments:
        """Moments in the form this mask works on."""

    def key_pairs(self, pairs: Value) -> Value:
        """For each pair of queries: sum over different keys j, j' seen by the first and the second."""

    def own_key_pairs(self, pairs: Value) -> Value:
        """For each query: sum over different keys j, j' that it sees."""

    def queries(self, each: Value) -> Value:
        """For each key: sum over the queries that see it."""

    def queries_of_both(self, each: Value) -> Value:
        """For each pair of keys: sum over the queries that see both."""

    def query_pairs(self, pairs: Value) -> Value:
        """For each pair of keys: sum over different queries i, i' that see the first and the second."""

    def own_query_pairs(self, pairs: Value) -> Value:
        """For each key: sum over different queries i, i' that see it."""


@dataclass(frozen=True)
class Bidirectional:
    """Every query sees all `length` keys."""

    length: int

    @property
    def keys(self) -> Value:
        return float(self.length)

    common_keys = keys

    def fewer(self, each: Value) -> Value:
        return each

    more = fewer

    def positions(self, x: Moments) -> Moments:
        return x.averaged()

    def key_pairs(self, pairs: Value) -> Value:
        return self.length * (self.length - 1.0) * pairs

    own_key_pairs = query_pairs = own_query_pairs = key_pairs

    def queries(self, each: Value) -> Value:
        return self.length * each

    queries_of_both = queries


@dataclass(frozen=True)
class Causal:
    """Query i sees keys 1..i."""

    length: int

    @property
    def keys(self) -> Value:
        return np.arange(1.0, self.length + 1.0)

    @property
    def common_keys(self) -> Value:
        return np.minimum.outer(self.keys, self.keys)

    def fewer(self, each: Value) -> Value:
        positions = np.arange(self.length)
        return np.asarray(each)[np.minimum.outer(positions, positions)]

    def more(self, each: Value) -> Value:
        positions = np.arange(self.length)
        return np.asarray(each)[np.maximum.outer(positions, positions)]

    def positions(self, x: Moments) -> Moments:
        return x.by_position(self.length)

    def key_pairs(self, pairs: Value) -> Value:
        return _without_diagonal(pairs).cumsum(axis=0).cumsum(axis=1)

    def own_key_pairs(self, pairs: Value) -> Value:
        return np.diagonal(self.key_pairs(pairs)).copy()

    def queries(self, each: Value) -> Value:
        return np.cumsum(np.asarray(each)[::-1])[::-1]

    def queries_of_both(self, each: Value) -> Value:
        positions = np.arange(self.length)
        return np.asarray(self.queries(each))[np.maximum.outer(positions, positions)]

    def query_pairs(self, pairs: Value) -> Value:
        return _without_diagonal(pairs)[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]

    def own_query_pairs(self, pairs: Value) -> Value:
        return np.diagonal(self.query_pairs(pairs)).copy()


def _without_diagonal(pairs: Value) -> Array:
    result = np.array(pairs, dtype=np.float64)
    np.fill_diagonal(result, 0.0)
    return result
