"""Whole stacks of transformer layers as chains of components: what a model does to its signal and its gradient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dslm_patches.theory.attention import Attention
from dslm_patches.theory.components import (
    Activation,
    Chain,
    Component,
    Dropout,
    GatedActivation,
    LayerNorm,
    Linear,
    Residual,
)
from dslm_patches.theory.moments import Moments
from dslm_patches.theory.shape import ModelShape


@dataclass(frozen=True)
class LayerWeights:
    """Variance of one weight of each matrix of a layer, and the coefficients of its two residual adds."""

    query: float
    key: float
    value: float
    output: float
    ffn_up: float
    ffn_down: float
    skip_scale: float = 1.0
    branch_scale: float = 1.0


@dataclass(frozen=True)
class StackProfile:
    """Moments at the embeddings' output (first) and at each layer's output, from the bottom, means over positions.

    Attributes:
        forward: of the hidden states.
        gradient: of the loss's gradient with respect to them.
    """

    forward: tuple[Moments, ...]
    gradient: tuple[Moments, ...]

    def layer_arrays(self) -> dict[str, np.ndarray]:
        """What the tracer measures at each layer's output, arrays [layers]; gradient variances over the last one's."""
        forward, gradient = self.forward[1:], self.gradient[1:]
        return {
            "variance": np.array([x.mean_variance for x in forward]),
            "correlation": np.array([x.correlation for x in forward]),
            "gradient_variance": np.array([g.mean_variance for g in gradient]) / gradient[-1].mean_variance,
            "gradient_correlation": np.array([g.correlation for g in gradient]),
        }


def layer_components(
    shape: ModelShape, weights: LayerWeights, *, post_norm: bool = False, norm_epsilon: float = 1e-5
) -> Chain:
    """One transformer layer: attention and FFN, each with its norm and residual add.

    Args:
        post_norm: LayerNorm on the skip (h' = skip LN(h) + branch f(LN(h))) in place of on the branch's input.
        norm_epsilon: added to the variance in every norm.
    """
    d, f = shape.hidden_size, shape.ffn_hidden_size
    attention = Attention(
        d,
        shape.attention_size,
        shape.num_heads,
        weights.query,
        weights.key,
        weights.value,
        shape.seq_length,
        shape.causal,
        shape.attention_dropout,
    )
    dropout = Dropout(shape.hidden_dropout)
    activation = (GatedActivation if shape.gated else Activation)(shape.activation)
    branches: list[list[Component]] = [
        [attention, Linear(shape.attention_size, d, weights.output), dropout],
        [Linear(d, f, weights.ffn_up), activation, Linear(f, d, weights.ffn_down), dropout],
    ]
    norm = LayerNorm(epsilon=norm_epsilon)
    skip, branch = weights.skip_scale, weights.branch_scale
    sublayers: list[Component] = []
    for parts in branches:
        if post_norm:
            sublayers += [norm, Residual(Chain(parts), skip, branch)]
        else:
            sublayers.append(Residual(Chain([norm, *parts]), skip, branch))
    return Chain(sublayers)


def stack_profile(
    shape: ModelShape,
    layers: Sequence[LayerWeights],
    embeddings: Moments,
    top_gradient: Moments | None = None,
    *,
    post_norm: bool = False,
    norm_epsilon: float = 1e-5,
) -> StackProfile:
    """Moments of the hidden states and of their gradients at every layer of a stack.

    Args:
        shape: what all layers have in common; how many they are, `layers` says.
        embeddings: moments of the first layer's input.
        top_gradient: moments of the gradient at the last layer's output; variance 1, uncorrelated, by default.
        post_norm, norm_epsilon: as in `layer_components`.

    Raises:
        ValueError: a correlation, dropout or activation outside its domain.
    """
    chains = [layer_components(shape, one, post_norm=post_norm, norm_epsilon=norm_epsilon) for one in layers]
    # Under a causal mask the moments of one layer are [L, L]: the inputs of few layers are kept, the others made again.
    segment = max(1, math.isqrt(len(chains)))
    kept = {}
    x, forward = embeddings, [embeddings.averaged()]
    for index, chain in enumerate(chains):
        if index % segment == 0:
            kept[index] = x
        x = chain.forward(x)
        forward.append(x.averaged())
    g = top_gradient or Moments(1.0)
    gradient = [g.averaged()]
    for start in sorted(kept, reverse=True):
        part = chains[start : start + segment]
        inputs = [kept[start]]
        for chain in part[:-1]:
            inputs.append(chain.forward(inputs[-1]))
        for chain, x in zip(reversed(part), reversed(inputs), strict=True):
            g = chain.backward(x, g)
            gradient.append(g.averaged())
    return StackProfile(tuple(forward), tuple(reversed(gradient)))
