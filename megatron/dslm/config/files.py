"""A configuration as a YAML file: a mapping for each part, in it a line a setting."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from dslm_patches.errors import UserError
from megatron.dslm.config.setting import Setting, settings_of

FLAG = "--config"


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """--config and --print-config, which are of no run's configuration."""
    add = parser.add_argument_group("configuration").add_argument
    add(FLAG, metavar="FILE", help="YAML file of settings, as --print-config writes it; flags override it")
    add("--print-config", action="store_true", help="write the settings that these flags and --config make, and leave")


def config_of(argv: Sequence[str] | None, sections: Sequence[type]) -> dict[str, Any]:
    """The settings of the file that a command line gives by --config, by name; {} without one.

    Raises:
        UserError: a file that cannot be read, a part or setting that the program does not have, or a wrong value; the
            file and the setting are named.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument(FLAG)
    try:
        path = peek.parse_known_args(argv)[0].config
    except argparse.ArgumentError:
        return {}  # --config without a file: the program's own parser says so
    return {} if path is None else read_config(path, sections)


def set_defaults(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> None:
    """Makes settings the defaults of a parser's flags, so that what is given need not be given again."""
    parser.set_defaults(**given)
    for action in parser._actions:
        if action.dest in given:
            action.required = False


def print_config_and_exit(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, sections: Sequence[type]
) -> None:
    """Where a command line asks for it: prints the settings it makes, complete or not, and ends the program."""
    if "--print-config" not in (sys.argv[1:] if argv is None else argv):
        return
    for action in parser._actions:
        action.required = False
    args = parser.parse_args(argv)
    if os.environ.get("RANK", "0") == "0":
        print(written_config(args, sections), end="")
    parser.exit()


def read_config(path: str, sections: Iterable[type]) -> dict[str, Any]:
    """The settings of a file by name; those that are null there are left out.

    Raises:
        UserError: see `config_of`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{FLAG} {path} cannot be read: {' '.join(str(error).split())}") from None
    known = {title_of(section): settings_of(section) for section in sections}
    found: dict[str, Any] = {}
    for title, settings in _mapping(content, path, "the file").items():
        if title not in known:
            raise UserError(f"{FLAG} {path}: there is no part {title!r}: known are {', '.join(known)}")
        for name, value in _mapping(settings or {}, path, title).items():
            if name not in known[title]:
                raise UserError(f"{FLAG} {path}: {title} has no setting {name!r}")
            if value is not None:
                found[name] = _read(known[title][name], value, path)
    return found


def written_config(args: argparse.Namespace, sections: Iterable[type]) -> str:
    """The settings of parsed flags as YAML that `read_config` takes."""
    content = {title_of(section): {name: getattr(args, name) for name in settings_of(section)} for section in sections}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def title_of(section: type) -> str:
    """What a part is called in a file: "depth_scheme"."""
    return (section.__doc__ or "").partition(":")[0].lower().replace("'s", "").replace(" ", "_")


def _mapping(content: Any, path: str, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{FLAG} {path}: {what} must be a mapping of names to values, not {content!r}")
    return content


def _read(setting: Setting, value: Any, path: str) -> Any:
    try:
        return setting.read(value)
    except UserError as error:
        raise UserError(f"{FLAG} {path}: {error}") from None
