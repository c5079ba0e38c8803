"""The folders a run reads and writes, looked at before anything starts."""

import os
import tempfile
from argparse import Namespace
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.saved_arguments import can_be_overridden, check_resume, read_arguments
from megatron.dslm.checkpoints.settings import CLASS_OF, CLASSES, OnResume
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.logging.run_folder import check_owner

_PROBE_BYTES = 1 << 16


def check_folders(args: Namespace, written: tuple[str, ...]) -> None:
    """Refuses folders that could not be read from or written to, by their arguments' names.

    A run that torchrun may start again (--max-restarts) goes on from its own --save where that holds a checkpoint. How
    often it was started is not asked: torchrun counts by machine.

    Raises:
        UserError: the flag and the folder are named.
    """
    for name in ("save_interval", "exit_interval", "async_save", "keep_last"):
        if getattr(args, name) and args.save is None:
            raise UserError(f"{spelled(name)} needs --save")
    if args.load is not None and os.path.lexists(args.load) and not os.path.isdir(args.load):
        raise UserError(f"--load {args.load} is not a folder")
    _resolve_overrides(args)
    for name in written:
        if getattr(args, name) is not None:
            _require_writable(spelled(name), getattr(args, name))
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        check_save_is_free(args)
    elif args.save is not None and find_checkpoint(args.save, "--save"):
        args.load = args.save


def check_save_is_free(args: Namespace) -> None:
    """Refuses a --save that holds checkpoints which the run does not go on from.

    Raises:
        UserError: the folder is named.
    """
    if args.save is not None and not _same_folder(args.save, args.load) and find_checkpoint(args.save, "--save"):
        raise UserError(f"--save {args.save} holds a checkpoint: go on with it by --load {args.save}, or remove it")


def _resolve_overrides(args: Namespace) -> None:
    given = [name for word in args.override_settings for name in word.split(",") if name]
    names = [name.removeprefix("--").replace("-", "_") for name in given]
    for word, name in zip(given, names, strict=True):
        if CLASS_OF.get(name) is OnResume.COURSE:
            raise UserError(f"--override-settings {word}: that goes with --override-opt-param-scheduler")
        if CLASS_OF.get(name) is OnResume.NEVER:
            raise UserError(f"--override-settings {word}: a run keeps that for as long as it lives; start a new one")
        if not can_be_overridden(args, name):
            can = " ".join(one.replace("_", "-") for one in CLASSES[OnResume.BY_NAME] if can_be_overridden(args, one))
            raise UserError(f"--override-settings {word}: no setting that can be taken over here; these can: {can}")
    args.override_settings = names


def recorded(args: Namespace, name: str) -> Any:
    """What the checkpoint that the run goes on from records under a name; None without one.

    Raises:
        UserError: its checkpoints are all damaged.
    """
    folder = None if args.load is None else find_checkpoint(args.load)
    return None if folder is None else read_arguments(folder).get(name)


def check_loaded(args: Namespace) -> None:
    """Refuses a --load whose checkpoints are all damaged, or whose newest is of another model or another course, and
    folders that another run wrote to.

    Args:
        args: checked in all else, with args.tokenizer.

    Raises:
        UserError: the flags that differ are named, or what is damaged, or the folder.
    """
    folder = None if args.load is None else find_checkpoint(args.load)
    saved = None if folder is None else read_arguments(folder)
    if folder is not None and saved is not None:
        check_resume(args, saved, folder)
    check_owner(args, saved)


def _require_writable(flag: str, path: str) -> None:
    parent = os.path.abspath(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
        raise UserError(f"{flag} {path}: {parent} is not a folder that can be written to")
    try:
        with tempfile.TemporaryFile(dir=parent) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise UserError(f"{flag} {path}: nothing can be written there: {error.strerror}") from None


def _same_folder(one: str, other: str | None) -> bool:
    return other is not None and os.path.realpath(one) == os.path.realpath(other)
