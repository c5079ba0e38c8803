"""Reads megatron-core's cached sample indices without the pickles that numpy would take in their place."""

import os
from typing import Any

import numpy
from megatron.core.datasets import blended_dataset, gpt_dataset, masked_dataset

from dslm_patches.errors import UserError


class _Numpy:
    """numpy as megatron-core's datasets see it: the same, but for loading."""

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)

    @staticmethod
    def load(path: str, **options: Any) -> Any:
        try:
            return numpy.load(path, **{**options, "allow_pickle": False})
        except (ValueError, EOFError):
            raise UserError(
                f"--data-cache-path: {os.fspath(path)} is not an index of samples: remove it, and it is made anew"
            ) from None


def install() -> None:
    """Makes the datasets of this process read indices of numbers alone: they ask numpy for pickles too."""
    for module in (blended_dataset, gpt_dataset, masked_dataset):
        module.numpy = _Numpy()
