"""The theory's activations as functions of torch, by the theory's names."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

TORCH_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "squared_relu": lambda x: F.relu(x).square(),
}
