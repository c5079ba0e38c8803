"""Random draws: tokens of a given correlation and gradients, by names that keep streams apart."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """How a simulation is run.

    Attributes:
        device: "cpu" or a CUDA device.
        dtype: of the draws; sums are float64.
        seed: of all draws.
        effort: factor on the number of draws.
        progress: called with the number of configurations finished since the last call.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    effort: float = 1.0
    progress: Callable[[int], None] = lambda done: None

    def count(self, draws: float, least: int = 8) -> int:
        """A number of draws, scaled by the effort."""
        return max(least, round(draws * self.effort))


def centred(values: Tensor) -> Tensor:
    """Less their mean over the tokens, along dimension -2."""
    return values - values.mean(-2, keepdim=True)


class Draws:
    """Standard normal and uniform numbers of one stream, told apart from others by a name.

    Tokens of correlation r are a shared part c and a token's own part e_t - mean(e), weighted by `parts.token_weights`:
    2 draws in place of a Cholesky factor of an L x L matrix, for every r that L tokens can have.
    """

    def __init__(self, settings: Settings, stream: str) -> None:
        digest = hashlib.sha256(f"{settings.seed}:{stream}".encode()).digest()
        self._generator = torch.Generator(settings.device)
        self._generator.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        self._device, self._dtype = settings.device, settings.dtype

    def normal(self, *shape: int) -> Tensor:
        """Independent standard normals."""
        return torch.empty(shape, device=self._device, dtype=self._dtype).normal_(generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        """Independent uniforms on [0, 1)."""
        return torch.empty(shape, device=self._device, dtype=self._dtype).uniform_(generator=self._generator)

    def stratified_normals(self, side: int) -> tuple[Tensor, Tensor]:
        """`side`^2 pairs of independent standard normals, one from each of `side`^2 equally likely cells.

        Means of any function of a pair have the right expectation and a far smaller scatter than of free draws.
        """
        cells = torch.arange(side, device=self._device, dtype=torch.float64)
        # Within its cell a number also lies in a stratum of its own among the cells of its row (or column).
        first, second = (self.uniform(side, side).argsort(dim=1).double() for _ in range(2))
        places = (
            (cells[:, None] + (first + self.uniform(side, side).double()) / side) / side,
            (cells[None, :] + (second.T + self.uniform(side, side).double()) / side) / side,
        )
        a, b = (torch.special.ndtri(place.clamp(1e-12, 1 - 1e-12)).flatten().to(self._dtype) for place in places)
        return a, b

    def matched_normal(self, *shape: int) -> Tensor:
        """Standard normals rescaled so that their mean square is 1: takes the scatter out of what is linear in it."""
        values = self.normal(*shape)
        return values / values.square().mean().sqrt()

    def own_parts(self, *shape: int) -> Tensor:
        """The tokens' own parts [..., L, features] of tokens of variance 1, rescaled as a `matched_normal` is."""
        values = centred(self.normal(*shape))
        return values * ((1.0 - 1.0 / shape[-2]) / values.square().mean()).sqrt()
