"""Replace string constants inside megatron-core's compiled functions, in place.

megatron-core writes `device="cuda"` and compares `tensor.type()` with `"torch.cuda.FloatTensor"`. Wrapping
torch's factory functions instead would change torch for everybody, cost time on every call, and break
`torch.jit.script` and `with torch.device("meta")`, which know those functions by identity. Changing the
constants in the function's code object touches megatron-core alone, and because the function object stays
the same, copies that other modules imported by name change with it.
"""

import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any


def replace_in_package(package: str, replacements: Mapping[str, str]) -> tuple[str, ...]:
    """Replace string constants in every function of the loaded modules of `package`.

    Returns:
        "module:qualified name" of each function that changed, sorted.
    """
    changed = []
    for name, module in sorted(sys.modules.items()):
        if module is not None and (name == package or name.startswith(package + ".")):
            for function in functions_of(module):
                if replace_in_function(function, replacements):
                    changed.append(f"{name}:{function.__qualname__}")
    return tuple(sorted(changed))


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that `module` itself defines, also those behind a decorator's wrapper."""
    for value in list(vars(module).values()):
        if isinstance(value, type):
            if value.__module__ == module.__name__:
                yield from _methods_of(value)
        else:
            yield from _unwrapped(value, module.__name__)


def _methods_of(cls: type) -> Iterator[FunctionType]:
    for value in list(vars(cls).values()):
        if isinstance(value, property):
            yield from _unwrapped(value.fget, cls.__module__)
        elif isinstance(value, staticmethod | classmethod):
            yield from _unwrapped(value.__func__, cls.__module__)
        elif isinstance(value, type) and value.__qualname__.startswith(cls.__qualname__ + "."):
            yield from _methods_of(value)
        else:
            yield from _unwrapped(value, cls.__module__)


def _unwrapped(value: Any, module_name: str) -> Iterator[FunctionType]:
    """`value` if it is a function of the module, and the chain of functions that it wraps."""
    while isinstance(value, FunctionType):
        if value.__module__ == module_name:
            yield value
        value = vars(value).get("__wrapped__")


def replace_in_function(function: FunctionType, replacements: Mapping[str, str]) -> bool:
    """Replace string constants in a function's body, nested functions and defaults; True if any was there."""
    code = _replace_in_constant(function.__code__, replacements)
    defaults = _replace_in_constant(function.__defaults__, replacements)
    keyword_defaults = {
        name: _replace_in_constant(value, replacements) for name, value in (function.__kwdefaults__ or {}).items()
    }
    changed = code is not function.__code__ or defaults is not function.__defaults__
    changed = changed or keyword_defaults != (function.__kwdefaults__ or {})
    if changed:
        function.__code__ = code
        function.__defaults__ = defaults
        function.__kwdefaults__ = keyword_defaults or None
    return changed


def _replace_in_constant(constant: Any, replacements: Mapping[str, str]) -> Any:
    """The constant with strings replaced, also inside tuples and code; the same object if none is inside."""
    if isinstance(constant, str):
        return replacements.get(constant, constant)
    if isinstance(constant, tuple):
        items = tuple(_replace_in_constant(item, replacements) for item in constant)
        return items if _differs(items, constant) else constant
    if isinstance(constant, CodeType):
        constants = tuple(_replace_in_constant(item, replacements) for item in constant.co_consts)
        if _differs(constants, constant.co_consts):
            return constant.replace(co_consts=constants)
    return constant


def _differs(new: tuple, old: tuple) -> bool:
    # By identity: equality would call 0 and False, or two tensors, into question.
    return any(a is not b for a, b in zip(new, old, strict=True))
