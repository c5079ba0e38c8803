"""What can be measured, by name; imports nothing."""

from collections.abc import Sequence

from dslm_patches.errors import UserError

SITES = {
    "layer": "output of each transformer layer",
    "attention": "each attention branch, before dropout and the residual add",
    "ffn": "each FFN branch, before dropout and the residual add",
    "norms": "output of each LayerNorm: attention_norm, ffn_norm, final_norm",
    "logits": "attention logits, the unmasked ones (megatron-core's local attention)",
    "embeddings": "output of the embeddings",
    "head": "output logits",
    "weights": "each layer's weights, their gradients and updates",
}
COMPUTED = ("embeddings", "attention_norm", "logits", "attention", "ffn_norm", "ffn", "layer", "final_norm", "head")
"""Names of the measured tensors in the order in which a step computes them."""
_OF_SITE = {"norms": ("attention_norm", "ffn_norm", "final_norm"), "weights": ()}
_BELOW, _ABOVE = ("embeddings",), ("final_norm", "head")
DIRECTIONS = ("activation", "gradient")


def tensor_names(sites: Sequence[str]) -> tuple[str, ...]:
    """Names of the tensors that these sites measure, in the order of COMPUTED.

    Raises:
        UserError: an unknown site, or none.
    """
    unknown = [site for site in sites if site not in SITES]
    if unknown or not sites:
        problem = f"{unknown[0]!r} is not a trace site" if unknown else "there is no trace site"
        raise UserError(f"{problem}: known are {', '.join(SITES)}")
    wanted = {name for site in sites for name in _OF_SITE.get(site, (site,))}
    return tuple(name for name in COMPUTED if name in wanted)


def layers_of(name: str, num_layers: int) -> tuple[int, ...]:
    """Numbers of the layers a tensor is measured at: 1 to num_layers, or 0 below and num_layers + 1 above them."""
    if name in _BELOW:
        return (0,)
    return (num_layers + 1,) if name in _ABOVE else tuple(range(1, num_layers + 1))
