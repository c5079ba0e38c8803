"""Softmax attention at initialisation: moments of its output and of the gradient through values, queries and keys.

With x_i the input tokens (d features, second moment s, token correlation r), M = Wq^T Wk / sqrt(d_k) of one head and
u_i = Wv^T g_i the gradient of a head brought back to the input:

    logits   z_ij = x_i^T M x_j, weights a_i = softmax(z_i), attention dropout m_ij / (1-p)
    output   o_i = Wv sum_j a_ij m_ij x_j
    gradient of x_j through V: sum_i a_ij m_ij u_i,
             through K: M^T sum_i a_ij x_i b_ij,  b_ij = m_ij u_i.x_j - sum_k a_ik m_ik u_i.x_k,
             of x_i through Q: M sum_j a_ij x_j b_ij.

Terms of order 1/d and 1/d_k are kept to first order. Every term is derived in docs/theory.md; arXiv 2403.09635 has the
value path alone, with sum_j a_ij^2 = 1/L.
"""

import math
from dataclasses import dataclass

import numpy as np

from dslm_patches.theory.averaging import averaged_variance, tilt
from dslm_patches.theory.masks import Bidirectional, Causal, Mask
from dslm_patches.theory.moments import Moments, Value, check_correlation, check_dropout, warn_outside
from dslm_patches.theory.softmax import LARGEST_LOGIT_VARIANCE, WeightSums, weight_sums
from dslm_patches.theory.softmax_pairs import PairSums, pair_sums

SMALLEST_HEAD = 16
BEYOND_THEORY = 16.0
LARGEST_RETURN = 0.5
"""kappa (1/d_k + 2/d), by which what goes through M and back is stronger: the gradient has it to first order."""
GATHERING_LIMIT = 0.4
"""Few large groups of keys cannot gather more than all weight; fitted to BERT's two segments at kappa 1 and 2.56."""


@dataclass(frozen=True)
class _Weights:
    """Moments of the softmax weights.

    Attributes:
        logit_variance: v, across the keys of each query.
        key_correlation: rho, mean correlation of the keys, as the weights of each query count them.
        sums: of each query.
        pairs: of each pair of queries, over the keys that both see.
    """

    logit_variance: Value
    key_correlation: Value
    sums: WeightSums
    pairs: PairSums


@dataclass(frozen=True)
class Attention:
    """Multi-head self-attention up to its concatenated heads, without the output projection.

    Grouped-query attention has the same moments: heads that share keys and values get independent gradients.

    Args:
        hidden_size: d, features of the input.
        attention_size: heads times head width.
        num_heads: heads; their width d_k decides how much logit variances scatter.
        query_variance, key_variance, value_variance: of one weight.
        seq_length: tokens, L.
        causal: each token sees itself and those before it only.
        dropout: probability p of dropping an attention weight.

    Raises:
        ValueError: a dropout outside [0, 1), sizes that make no head or no token, or (from the maps) an input without
            variance or a correlation that L tokens cannot have.
    """

    hidden_size: int
    attention_size: int
    num_heads: int
    query_variance: float
    key_variance: float
    value_variance: float
    seq_length: int
    causal: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_dropout(self.dropout)
        if self.seq_length < 1:
            raise ValueError(f"a sequence has at least one token, not {self.seq_length}")
        if min(self.hidden_size, self.num_heads) < 1 or self.attention_size < 1 or self.attention_size % self.num_heads:
            raise ValueError(
                f"heads of equal width, at least one feature each, are needed: not {self.num_heads} heads over "
                f"{self.attention_size} of {self.hidden_size} features"
            )

    @property
    def _mask(self) -> Mask:
        return Causal(self.seq_length) if self.causal else Bidirectional(self.seq_length)

    @property
    def _scatter(self) -> float:
        """tr (M^T M)^2 / (tr M^T M)^2 = 1/d_k + 2/d of one head's M: relative scatter of products of x through M."""
        return self.num_heads / self.attention_size + 2.0 / self.hidden_size

    def _logit_scale(self, second_moment: float) -> float:
        """kappa = d^2 s^2 wq^2 wk^2, the variance of a logit between independent tokens."""
        return (self.hidden_size * second_moment) ** 2 * self.query_variance * self.key_variance

    def _input(self, x: Moments) -> tuple[float, Value, float]:
        """Second moment s of the input, token correlations of its second moments and their variance over pairs."""
        if np.ndim(x.covariance) == 0:
            check_correlation(x.correlation, self.seq_length)
        x = self._mask.positions(x)
        s = float(np.mean(x.variance)) + x.mean**2
        if not s > 0.0:
            raise ValueError("attention: its input has no variance")
        r = (x.covariance + x.mean**2) / s
        return s, r, x.pair_scatter / s**2

    def _weights(self, kappa: float, r: Value, pair_scatter: float) -> _Weights:
        mask = self._mask
        keys = mask.keys
        pairs_of_keys = np.maximum(keys * (keys - 1.0), 1.0)
        # Keys that are alike get large weights together: pairs count by e^(kappa r), short of few large groups.
        gathered = kappa * pair_scatter / (1.0 + GATHERING_LIMIT * kappa) * (keys > 1.0)
        key_correlation = np.minimum(mask.own_key_pairs(r) / pairs_of_keys + gathered, 1.0)
        v = kappa * (1.0 - key_correlation)
        if np.max(v) > BEYOND_THEORY:
            raise ValueError(
                f"attention: logits of variance {np.max(v):.3g} across the keys pick single keys, beyond the theory "
                f"(at most {BEYOND_THEORY:g}): queries and keys need smaller weights"
            )
        if np.max(v) > LARGEST_LOGIT_VARIANCE:
            warn_outside(
                f"attention: logits of variance {np.max(v):.3g} across the keys; the formulas were checked up to "
                f"{LARGEST_LOGIT_VARIANCE:g}"
            )
        sums = weight_sums(keys, v, min(math.sqrt(2.0 * self._scatter), 1.0))
        pairs = pair_sums(
            (mask.common_keys, mask.more(keys)),
            (sums.map(mask.fewer), sums.map(mask.more)),
            mask.fewer(v),
            r,  # rows of logits are as correlated as their queries
            self._scatter,
        )
        return _Weights(v, key_correlation, sums, pairs)

    def forward(self, x: Moments) -> Moments:
        """Averaged values: d wv^2 s times `averaged_variance`, and the covariance likewise with O in place of S."""
        mask, p = self._mask, self.dropout
        s, r, scatter = self._input(x)
        w = self._weights(self._logit_scale(s), r, scatter)
        pull = tilt(w.logit_variance, w.sums.squares, self.hidden_size)
        variance = averaged_variance(w.key_correlation, w.sums, w.logit_variance, self.hidden_size, p)
        pairs = keys_of(mask.keys, 0) * keys_of(mask.keys, 1) - mask.common_keys
        between = mask.key_pairs(r) / np.maximum(pairs, 1.0)
        covariance = between * (1.0 - w.pairs.shared) + w.pairs.shared + (1.0 - between) * r * keys_of(pull, 0)
        gain = self.hidden_size * self.value_variance * s
        return Moments(gain * variance, gain * covariance)

    def backward(self, x: Moments, g: Moments) -> Moments:
        """Gradient at the input through V, K and Q."""
        mask = self._mask
        if np.ndim(g.covariance) == 0:
            check_correlation(g.correlation, self.seq_length)
        g = mask.positions(g)
        s, r, scatter = self._input(x)
        kappa = self._logit_scale(s)
        head_size = self.attention_size // self.num_heads
        if head_size < SMALLEST_HEAD:
            warn_outside(f"attention: heads of {head_size} features; the gradient was checked from {SMALLEST_HEAD} up")
        elif kappa * self._scatter > LARGEST_RETURN:
            warn_outside(
                f"attention: logits of variance {kappa:.3g} from heads of {head_size} of {self.hidden_size} features; "
                f"the gradient was checked up to {LARGEST_RETURN / self._scatter:.3g} there"
            )
        w = self._weights(kappa, r, scatter)
        gain = self.attention_size * self.value_variance
        values = self._through_values(mask, w, g)
        keys = self._through_keys(mask, w, g)
        queries = self._through_queries(w, g)
        return Moments(
            gain * (values.variance + kappa * (keys.variance + queries.variance)),
            gain * (values.covariance + kappa * (keys.covariance + queries.covariance)),
        )

    def _through_values(self, mask: Mask, w: _Weights, g: Moments) -> Moments:
        """sum_i a_ij m_ij u_i: squared weights carry the tokens' own gradients, overlaps the shared ones."""
        keys, first, second = mask.keys, keys_of(mask.keys, 0), keys_of(mask.keys, 1)
        own = mask.queries(g.variance * w.sums.squares / keys) / (1.0 - self.dropout)
        shared = mask.own_query_pairs(g.covariance * w.pairs.shared / mask.common_keys)
        both = g.variance * (1.0 - w.sums.squares) / np.maximum(keys * (keys - 1.0), 1.0)
        different = g.covariance * (1.0 - w.pairs.shared) / np.maximum(first * second - mask.common_keys, 1.0)
        return Moments(own + shared, mask.queries_of_both(both) + mask.query_pairs(different))

    def _through_keys(self, mask: Mask, w: _Weights, g: Moments) -> Moments:
        """M^T sum_i a_ij x_i b_ij over kappa. It sums to zero over the keys of each query."""
        keys, own, sums = mask.keys, 1.0 - w.key_correlation, w.sums
        dropped, d = self.dropout / (1.0 - self.dropout), self.hidden_size
        lean = own / d * w.logit_variance * sums.squares_lean / sums.squares
        kept = own * (sums.moving_spread + (sums.stretch - sums.spread) / d)
        # What the same queries bring through V points the same way: 2 V K.
        with_values = 2.0 / d * own * (sums.lean + 0.5 * dropped * sums.squares_lean)
        # Dropped keys count with what they share with the query, whose length it is too.
        lean += 2.0 / d * w.key_correlation**2
        each = g.variance * (kept + dropped * sums.moving_spread * (1.0 + lean) + with_values)
        # Queries are alike in M^T x as far as their rows of logits are, by chance too.
        pair = g.covariance * mask.fewer(own) * (1.0 + 2.0 / d) * w.pairs.pulls
        variance = mask.queries(each / keys) + mask.own_query_pairs(pair / mask.common_keys)
        rest = np.maximum(keys - 1.0, 1.0)
        pair_rest = np.maximum(keys_of(keys, 0) * keys_of(keys, 1) - mask.common_keys, 1.0)
        covariance = -mask.queries_of_both(each / keys / rest) - mask.query_pairs(pair / pair_rest)
        return Moments(variance, covariance)

    def _through_queries(self, w: _Weights, g: Moments) -> Moments:
        """M sum_j a_ij x_j b_ij over kappa: the covariance of the keys times u_i, and its sampling noise."""
        own, sums, d = 1.0 - w.key_correlation, w.sums, self.hidden_size
        dropped = self.dropout / (1.0 - self.dropout)
        mean = own * (1.0 - sums.squares)
        lean = own / d * (w.logit_variance * sums.squares_lean / sums.squares + 2.0)
        # Keys lean to M^T x_i, which M brings back more strongly than other directions.
        stretch = self._scatter * (sums.stretch - sums.spread)
        kept = own * (sums.spread + stretch + sums.stretch / d)
        noise = own * (kept + dropped * (sums.spread * (1.0 + lean) + stretch))
        pair = keys_of(mean, 0) * keys_of(mean, 1) / d + w.pairs.slopes * keys_of(own, 0) * keys_of(own, 1)
        return Moments(g.variance * (mean**2 / d + noise), g.covariance * pair)


def keys_of(each: Value, axis: int) -> Value:
    """A value per query, laid out along rows (0) or columns (1) of an array of pairs."""
    if np.ndim(each) == 0:
        return each
    return np.asarray(each)[:, None] if axis == 0 else np.asarray(each)[None, :]
