"""Command-line flags of a configuration's dataclasses, in groups. Names are Megatron-LM's wherever it has one."""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from megatron.dslm.config.setting import Setting, settings_of


def add_section(
    parser: argparse.ArgumentParser,
    section: type,
    *,
    defaults: Mapping[str, Any] | None = None,
    optional: Collection[str] = (),
) -> None:
    """Adds a group of flags, one for each setting of a dataclass whose docstring is the group's title.

    Args:
        defaults: in place of the settings' own, by name.
        optional: settings that need not be given here.
    """
    title, _, description = (section.__doc__ or "").partition(": ")
    group = parser.add_argument_group(title, description or None)
    for name, one in settings_of(section).items():
        default = (defaults or {}).get(name, one.default)
        _add_flag(group, one, default, required=one.required and name not in optional)


def _add_flag(group: Any, one: Setting, default: Any, *, required: bool) -> None:
    text = one.help.replace("%", "%%")
    if one.type is bool:
        if default:
            group.add_argument(one.flag, action=argparse.BooleanOptionalAction, default=True, help=text)
        else:
            group.add_argument(one.flag, *one.aliases, action="store_true", help=text)
            # takes back what --config switches on
            negation = f"--no-{one.flag.removeprefix('--')}"
            hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            group.add_argument(negation, dest=one.name, action="store_false", **hidden)
        return
    if default is not None and not one.many and "default" not in text:
        text += f"; default {default:g}" if isinstance(default, float) else f"; default {default}"
    group.add_argument(
        one.flag,
        *one.aliases,
        type=one.type,
        nargs="+" if one.many else None,
        default=default,
        required=required,
        choices=one.choices,
        metavar=one.metavar,
        help=text,
    )
