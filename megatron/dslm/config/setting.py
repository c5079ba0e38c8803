"""One field of a configuration: its flag, its help, what values it may have, what becomes of it on resume.

A field's docstring is its help, its type what its flag reads. Read without torch.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import sys
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.config.one_line_parser import spelled

_KEY = "setting"


class OnResume(Enum):
    """Whether a resumed run may have another value than the checkpoint's run had."""

    NEVER = "never: it makes the model or the optimizer's state"
    COURSE = "with `--override-opt-param-scheduler`"
    BY_NAME = "with `--override-settings NAME`"
    FREE = "may change"
    SPELLING = "another spelling, counted as the flags that it stands for"


@dataclass(frozen=True)
class Bounds:
    """What a number may be.

    Attributes:
        hold: whether a value is allowed.
        description: how that reads after the flag's name, "must be positive" for example.
    """

    hold: Callable[[float], bool]
    description: str


POSITIVE = Bounds(lambda value: value > 0, "must be positive")
NOT_NEGATIVE = Bounds(lambda value: value >= 0, "must not be negative")
PROBABILITY = Bounds(lambda value: 0.0 <= value < 1.0, "must lie in [0, 1)")
SHARE = Bounds(lambda value: 0.0 < value <= 1.0, "must lie in (0, 1]")


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Setting:
    """What a field says of itself.

    Attributes:
        name: of the field, "num_layers".
        type: of its values: int, float, bool or str; of a list, its elements'.
        many: it is a list.
        default: None also where it follows from others.
        required: it has no default.
        help: the field's docstring.
        on_resume: whether a resumed run may have another value.
        bounds: of a number.
        choices: the words it may be.
        aliases: further spellings of its flag.
        metavar: what stands for its value in --help.
    """

    name: str
    type: type
    many: bool
    default: Any
    required: bool
    help: str
    on_resume: OnResume
    bounds: Bounds | None
    choices: Collection[str] | None
    aliases: tuple[str, ...]
    metavar: str | None

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return spelled(self.name)

    def read(self, value: Any) -> Any:
        """A value of a YAML file as the setting's type; numbers may be words, as YAML reads 1e-3.

        Raises:
            UserError: another type, or none of the choices; the setting is named.
        """
        if self.many:
            words = value if isinstance(value, list) else [value]
            return [self._read_one(one) for one in words]
        return self._read_one(value)

    def _read_one(self, value: Any) -> Any:
        wrong = UserError(f"{self.name} must be {_TYPE_NAMES[self.type]}, not {value!r}")
        if (self.type is bool) != isinstance(value, bool) or not isinstance(value, (bool, int, float, str)):
            raise wrong
        if self.type is int and isinstance(value, float):
            raise wrong
        try:
            found = self.type(value)
        except (ValueError, OverflowError):
            raise wrong from None
        if self.choices is not None and found not in self.choices:
            raise UserError(f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}")
        return found

    def check(self, value: Any) -> None:
        """Refuses a number out of bounds.

        Raises:
            UserError: the flag is named.
        """
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{self.flag} must be a finite number, not {value}")
        if self.bounds is None or value is None or isinstance(value, (bool, str, list)):
            return
        if not self.bounds.hold(value):
            raise UserError(f"{self.flag} {self.bounds.description}, not {value}")


def setting(
    on_resume: OnResume,
    default: Any = dataclasses.MISSING,
    *,
    bounds: Bounds | None = None,
    choices: Collection[str] | None = None,
    aliases: tuple[str, ...] = (),
    metavar: str | None = None,
) -> Any:
    """A field of a configuration's dataclass; without a default it is required. See `Setting`."""
    metadata = {_KEY: {"on_resume": on_resume, "bounds": bounds, "choices": choices}}
    metadata[_KEY] |= {"aliases": aliases, "metavar": metavar}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def settings_of(section: type) -> dict[str, Setting]:
    """The settings of a configuration's dataclass by name, in their order."""
    types, texts = typing.get_type_hints(section), dict(_docstrings(section))
    found = {}
    for field in dataclasses.fields(section):
        kind, many = _element(types[field.name])
        default = None if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = field.default is field.default_factory is dataclasses.MISSING
        found[field.name] = Setting(
            field.name, kind, many, default, required, texts.get(field.name, ""), **field.metadata[_KEY]
        )
    return found


def _element(kind: Any) -> tuple[type, bool]:
    """The type of a field's values, or of its elements, and whether it is a list."""
    parts = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is list:
        return parts[0], True
    if parts:  # what may be None
        return _element(parts[0])
    return kind, False


def _docstrings(section: type) -> Iterator[tuple[str, str]]:
    """The strings under the fields of a class and of those it inherits from, by field."""
    for one in section.__mro__[:-1]:
        body = _classes_of(sys.modules[one.__module__])[one.__name__].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                yield field.target.id, inspect.cleandoc(text.value.value).replace("\n", " ")  # type: ignore[attr-defined]


@functools.cache
def _classes_of(module: Any) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
