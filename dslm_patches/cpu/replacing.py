"""Replacing what megatron-core or torch hold under a dotted name."""

import importlib
from collections.abc import Mapping
from typing import Any


def replace_all(replacements: Mapping[str, Any]) -> tuple[str, ...]:
    """Set each dotted name to its replacement; AttributeError if the name is not there."""
    for name, replacement in replacements.items():
        owner, attribute = _resolve_owner(name)
        getattr(owner, attribute)
        setattr(owner, attribute, replacement)
    return tuple(replacements)


def _resolve_owner(name: str) -> tuple[Any, str]:
    """The object that holds the last part of a dotted name, and that part."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise AttributeError(f"no module in {name!r}")
