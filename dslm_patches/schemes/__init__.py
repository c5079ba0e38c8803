"""Depth schemes: what each prescribes for a model, as data. A scheme is one file here, found by its decorator."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from dslm_patches.errors import UserError
from dslm_patches.schemes.base import (
    DepthScheme,
    LayerPrescription,
    NormPlacement,
    OptionError,
    SchemeOptions,
    WeightRole,
)
from dslm_patches.theory.shape import ModelShape

__all__ = [
    "DepthScheme",
    "LayerPrescription",
    "ModelShape",
    "NormPlacement",
    "OptionError",
    "SchemeOptions",
    "WeightRole",
    "build_scheme",
    "scheme",
    "scheme_names",
]

SchemeBuilder = Callable[[ModelShape, SchemeOptions], DepthScheme]
_BUILDERS: dict[str, SchemeBuilder] = {}


def scheme(name: str) -> Callable[[SchemeBuilder], SchemeBuilder]:
    """Registers the decorated builder under the name it is asked for by."""

    def register(builder: SchemeBuilder) -> SchemeBuilder:
        _BUILDERS[name] = builder
        return builder

    return register


def _discover() -> None:
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


def scheme_names() -> list[str]:
    """The names of all schemes, sorted."""
    _discover()
    return sorted(_BUILDERS)


def build_scheme(name: str, shape: ModelShape, options: SchemeOptions | None = None) -> DepthScheme:
    """The prescription of scheme `name` for a model of the given shape.

    Raises:
        UserError: an unknown name (the known ones are listed).
        OptionError: options the scheme cannot hold.
    """
    names = scheme_names()
    if name not in names:
        raise UserError(f"unknown depth scheme {name!r}: known are {', '.join(names)}")
    return replace(_BUILDERS[name](shape, options or SchemeOptions()), shape=shape)
