"""Files and folders that are there whole or not at all: written under a name beside their own, then renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dslm_patches.errors import UserError


def write_aside(path: str | os.PathLike[str], text: str, *, unique: bool = False, sync: bool = False) -> None:
    """Writes a text file: whoever reads it, at any moment, finds what was there before or all of the new.

    Args:
        unique: where several processes may write it at once. Otherwise the next write takes what a killed one left.
        sync: it is on the disk when this returns, and so is its name.
    """
    path = Path(path)
    aside = _aside(path, unique)
    try:
        if sync:
            write_synced(aside, text)
        else:
            aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if sync:
        sync_folder(path.parent)


@contextmanager
def atomic_outputs(*paths: Path) -> Iterator[list[Path]]:
    """Temporary names beside `paths` to write to; only on success they take the final names, in this order.

    A reader never sees a half-written file, however the writer ends, nor an old file beside a new one: where
    the last of `paths` is there, all are, and from the same run.

    Raises:
        UserError: the folder cannot be made.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {path.parent} for {path.name}: {error.strerror}") from error
    temporary = [_aside(path, unique=True) for path in paths]
    try:
        yield temporary
        if len(paths) > 1:
            for path in reversed(paths):
                path.unlink(missing_ok=True)
        for source, path in zip(temporary, paths, strict=True):
            os.replace(source, path)
    finally:
        for source in temporary:
            source.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """A folder beside `path` to write to; on success it takes its name, in the place of an empty folder at most.

    Args:
        unique: as for `write_aside`.
    """
    aside = _aside(path, unique)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_synced(path: str | os.PathLike[str], text: str) -> None:
    """A new file, on the disk when this returns. What stands in its place, a link say, is removed, not followed."""
    if os.path.lexists(path):
        os.unlink(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Puts the names in a folder on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _aside(path: Path, unique: bool) -> Path:
    """Hidden, so that no pattern that takes all files of a folder takes this one."""
    return path.with_name(f".{path.name}.incomplete" + (f"-{secrets.token_hex(4)}" if unique else ""))
